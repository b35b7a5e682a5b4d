"""The table of encoders: what it says is what FFmpeg's build here knows."""

from __future__ import annotations

import av
import pytest
from av.video.format import VideoFormat

from giffusion.engine.encode.codec import options
from giffusion.engine.encode.encoders import ENCODERS, EncoderChoice
from giffusion.engine.encode.formats import FORMATS
from giffusion.engine.encode.pictures import PictureMaker
from giffusion.engine.frames import PixelFormat

VIDEO = sorted(name for name, info in ENCODERS.items() if info.pixel_format is PixelFormat.NV12)


def test_every_encoder_writes_a_format_and_every_format_has_one() -> None:
    named = [name for kind in FORMATS.values() for name in kind.encoders]
    assert {*named} == ENCODERS.keys()
    assert all(kind.encoders for kind in FORMATS.values())


def test_a_formats_own_encoder_is_software() -> None:
    assert not any(ENCODERS[kind.encoders[0]].on_nvidia for kind in FORMATS.values())


@pytest.mark.parametrize("name", VIDEO)
def test_ffmpeg_knows_every_option_and_value(name: str) -> None:
    """FFmpeg ignores an option that it does not know, without a word."""
    known = av.CodecContext.create(name, "w").supported_options
    by_name = {option.name: option for option in (*known.generic, *known.private)}
    for key, value in options(ENCODERS[name]).items():
        assert key in by_name
        choices = {choice.name for choice in by_name[key].choices}
        if value.isdecimal():
            assert by_name[key].min <= int(value) <= by_name[key].max or by_name[key].max == 0
        elif choices:
            assert value in choices


@pytest.mark.parametrize("name", VIDEO)
def test_ffmpeg_takes_the_pictures_that_it_is_given_without_swscale(name: str) -> None:
    formats = av.codec.Codec(name, "w").video_formats or []
    taken = {form.name for form in formats if isinstance(form, VideoFormat)}
    info = ENCODERS[name]
    for on_device in {False, info.on_nvidia}:
        assert PictureMaker(EncoderChoice(info, on_device=on_device), (256, 256)).format in taken
