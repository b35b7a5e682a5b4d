"""Settings of films, sounds and motion: what fits together, and what is refused in a line."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from giffusion.engine.errors import InputError, SettingsError
from giffusion.engine.media_settings import audio_options, film_cut, heard_part
from giffusion.engine.settings import RenderSettings
from giffusion.engine.timelines.planning import plan_timeline


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"audio_smooth": 0.5}, "--audio-smooth is given and there is no audio: expected a file"),
        ({"video_start_s": Fraction(1)}, "--video-start is given and there is no video"),
        ({"keep_audio": True}, "--keep-audio is given and there is no video"),
        ({"mute": True}, "--mute is given and there is no audio"),
        ({"image": "a", "video": "b"}, "image and video both give what frames start from"),
        ({"video": "b", "zoom": 1}, "video gives every frame its own picture"),
        ({"video": "b", "keep_audio": True, "audio": "c"}, "both bring a sound: give one of them"),
        ({"video": "b", "keep_audio": True, "video_stride": 2}, "would be faster than its sound"),
        ({"video": "b", "video_start_s": 3, "video_end_s": 2}, ""),
        ({"video": "b", "video_stride": 0}, "video_stride 0 is out of range"),
        (
            {"interpolation": "audio"},
            "interpolation audio follows a sound: expected one by --audio",
        ),
        ({"audio": "c", "audio_component": "drums"}, "unknown component 'drums'"),
        ({"resize": "pad"}, "--resize has no effect here: expected it beside a picture or film"),
        ({"padding": "zeros"}, "--padding has no effect here: expected it beside motion"),
        ({"zoom": 2, "coherence_alpha": 0.5}, "--coherence-alpha has no effect here"),
        (
            {"coherence_noise": 0.2},
            "--coherence-noise has no effect here: expected it beside --coh",
        ),
        ({"padding": "mirror"}, "unknown padding 'mirror'"),
        ({"seed": "-1"}, "seed -1 is out of range: expected at least 0"),
    ],
)
def test_refusals(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        RenderSettings(**values)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "values",
    [
        {"image": "a", "zoom": 1.1},
        {"image": "a", "resize": "pad"},
        {"control": "a", "resize": "stretch"},
        {"angle": 1, "padding": "zeros"},
        {"coherence": 10, "coherence_noise": 0, "padding": "reflection"},
        {"video": "b", "audio": "c", "interpolation": "audio", "guidance": "4 + audio"},
    ],
)
def test_what_fits_together(values: dict[str, Any]) -> None:
    settings = RenderSettings(**values)
    assert settings.has_init == ("image" in values or "video" in values)
    assert settings.is_chained == bool({"zoom", "angle", "coherence"} & values.keys())


def test_what_is_read_and_heard() -> None:
    settings = RenderSettings(
        video="b.mp4", video_start_s=Fraction(2), video_stride=3, resize="pad"
    )
    cut = film_cut(settings)
    assert cut is not None
    assert (cut.path, cut.start_s) == (Path("b.mp4"), Fraction(2))
    assert (cut.stride, cut.resize) == (3, "pad")
    assert heard_part(settings) is None
    loud = RenderSettings(
        video="b.mp4", video_start_s=Fraction(2), video_end_s=Fraction(7, 2), keep_audio=True
    )
    assert heard_part(loud) == (Path("b.mp4"), Fraction(2), Fraction(7, 2))
    song = RenderSettings(
        audio="c.mp3", audio_start_s=Fraction(1), audio_band=(20, 200), video="b.mp4"
    )
    assert heard_part(song) == (Path("c.mp3"), Fraction(1), None)
    assert audio_options(song).band == (20, 200)
    assert heard_part(RenderSettings(audio="c.mp3", mute=True)) is None
    assert heard_part(RenderSettings()) is None


@pytest.mark.parametrize(
    ("values", "follows"),
    [
        ({}, False),
        ({"mute": True, "audio_smooth": 0.5}, False),
        ({"guidance": "3 + t"}, False),
        ({"interpolation": "audio"}, True),
        ({"guidance": "0:(3), 5:(3 + audio)"}, True),
        ({"zoom": "1 + audio/20"}, True),
        ({"seed": "audio * 10"}, True),
        ({"interpolation": "curve", "interpolation_args": "audio**2"}, True),
    ],
)
def test_a_sound_is_listened_to_where_something_follows_it(
    values: dict[str, Any], follows: bool
) -> None:
    settings = RenderSettings(audio="song.wav", **values)
    assert settings.follows_sound == follows
    # Without it the file is not even opened to plan.
    if follows:
        with pytest.raises(InputError, match=r"song\.wav cannot be read: No such file"):
            plan_timeline("0: a\n5: b", settings)
    else:
        assert len(plan_timeline("0: a\n5: b", settings)) == 6
    assert not RenderSettings().follows_sound
