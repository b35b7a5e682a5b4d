"""The containers of video, MP4 and WebM: how FFmpeg writes one, and how one is read.

Called by `video.py`, by `avif.py` for what it sets aside, and by the table of formats for the text
in a file. The invariant: of a file that is read nothing else is opened, whatever it names.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer

from giffusion.engine.encode.sound import AAC, OPUS, SoundCodec

TAG = "giffusion"
_MIN_TIMESCALE, _MAX_TIMESCALE = 10_000, 2**31 - 1
_RATE_TOLERANCE_S = Fraction(1, 10_000_000)


@dataclass(frozen=True, slots=True)
class VideoContainer:
    """A kind of video file.

    Args:
        name: what it is called in messages.
        muxer: FFmpeg's name of what writes it.
        demuxer: FFmpeg's name of what reads it.
        options: FFmpeg's options for writing at a rate, with sound at a rate or without.
        sound: what its sound is encoded as.
        ticks: times are rounded to so many a second; None where they are exact at every rate.
    """

    name: str
    muxer: str
    demuxer: str
    options: Callable[[Fraction, int | None], dict[str, str]]
    sound: SoundCodec
    ticks: int | None = None

    def start_of(self, index: int, fps: Fraction) -> Fraction:
        """Returns when a frame begins, in seconds, as the container can say it."""
        if self.ticks is None:
            return index / fps
        # Halves go up, as in FFmpeg.
        return Fraction(math.floor(self.ticks * index / fps + Fraction(1, 2)), self.ticks)

    def is_rate(self, found: Fraction, fps: Fraction) -> bool:
        """Returns whether a rate that was read is the one that was written.

        Where times are rounded the file says nanoseconds, and FFmpeg a short fraction near them.
        """
        if self.ticks is None or not found:
            return found == fps
        return abs(1 / found - 1 / fps) < _RATE_TOLERANCE_S


def exact_timescale(fps: Fraction) -> int:
    """Returns ticks a second of which a frame lasts a whole number, 10,000 or more."""
    return fps.numerator * math.ceil(_MIN_TIMESCALE / fps.numerator)


def open_video(path: Path, container: VideoContainer) -> InputContainer:
    """Opens a video file for reading, and nothing else that a crafted file may name."""
    demuxer = {"protocol_whitelist": "file"}
    return av.open(str(path.absolute()), "r", format=container.demuxer, options=demuxer)


def read_tag(path: Path, container: VideoContainer) -> str | None:
    """Returns the text that a render stored, or None where the file has none."""
    with open_video(path, container) as file:
        # Matroska has its names in capitals.
        return file.metadata.get(TAG) or file.metadata.get(TAG.upper())


def _mp4_options(fps: Fraction, sound_rate: int | None) -> dict[str, str]:
    """Returns options for an exact time base and a file that browsers play at once."""
    frames = exact_timescale(fps)
    # FFmpeg rounds durations to the movie's time base, milliseconds unless told otherwise.
    both = math.lcm(frames, sound_rate or 1)
    return {
        "movflags": "+faststart+use_metadata_tags",
        "movie_timescale": str(both if both <= _MAX_TIMESCALE else frames),
        "video_track_timescale": str(frames),
    }


def _webm_options(fps: Fraction, sound_rate: int | None) -> dict[str, str]:
    """Returns options for a file without random numbers, whose index browsers see at once."""
    return {"fflags": "+bitexact", "cues_to_front": "1"}


MP4 = VideoContainer("MP4", "mp4", "mp4", _mp4_options, AAC)
WEBM = VideoContainer("WebM", "webm", "matroska", _webm_options, OPUS, ticks=1000)
