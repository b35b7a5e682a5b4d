"""What is particular to NVENC: how many may run at once, and what its failures mean.

Called by `probe.py` and `video.py`. The invariant: an NVENC that cannot be had is one line that
says why, at once; nothing waits for one to become free.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import av

from giffusion.engine.errors import RenderError, SettingsError, one_line

MAX_SESSIONS = 8
"""Sessions that NVIDIA's driver allows a machine of GeForce cards; professional ones have no limit.

Source: NVIDIA, Video Encode and Decode GPU Support Matrix; eight since January 2024.
"""
MAX_SESSIONS_VARIABLE = "GIFFUSION_NVENC_SESSIONS"

# Some drivers fail alike in a container that sees only a part of the machine's GPUs.
_NONE = (
    "this GPU has no NVENC, as H100, H200 and A100 have none, or the driver hides it from the "
    "container"
)
# Parts of what FFmpeg's libavcodec/nvenc.c logs, the most telling first.
_MEANINGS = (
    ("Cannot load libcuda", "no NVIDIA driver was found"),
    ("Cannot load nvcuda", "no NVIDIA driver was found"),
    (
        "Cannot load libnvidia-encode",
        "the NVIDIA driver came without its encoder, libnvidia-encode: in a container, give it "
        "the driver capability 'video'",
    ),
    ("Cannot load nvEncodeAPI", "the NVIDIA driver came without its encoder"),
    ("required nvenc API version", "the NVIDIA driver is too old"),
    ("unsupported device", _NONE),
    ("no encode device", _NONE),
    ("incompatible client key", "the driver opens no more sessions: other encoders have them all"),
    (
        "OpenEncodeSessionEx failed: out of memory",
        "the driver opens no more sessions: other encoders have them all, or the GPU's memory is "
        "full",
    ),
    ("Codec not supported", "this GPU's NVENC does not have the codec"),
    ("CUDA_ERROR_NO_DEVICE", "no NVIDIA GPU was found"),
    ("No CUDA capable devices", "no NVIDIA GPU was found"),
)
_PASSING = ("incompatible client key", "out of memory")
_log_lock = threading.Lock()
"""Held while FFmpeg's log is on: its level is one for the process."""


class NvencError(RenderError):
    """NVENC could not be opened.

    Args:
        reason: why, in words.
        passing: another moment may see it work.
    """

    def __init__(self, reason: str, *, passing: bool) -> None:
        super().__init__(reason)
        self.passing = passing


class Sessions:
    """Counts the NVENC encoders of this process that are open.

    Args:
        limit: how many may be open at once.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._free = threading.BoundedSemaphore(limit)

    def take(self, name: str) -> None:
        """Counts one encoder in.

        Raises:
            RenderError: the limit is reached.
        """
        if not self._free.acquire(blocking=False):
            raise RenderError(
                f"{name} cannot start: {self._limit} NVENC encoders are open already, as many as "
                "GeForce cards allow: wait for one to end, give --encoder libx264, or on a "
                f"professional card set {MAX_SESSIONS_VARIABLE}"
            )

    def give_back(self) -> None:
        """Counts one encoder out."""
        self._free.release()


@cache
def sessions() -> Sessions:
    """Returns the count of this process.

    Raises:
        SettingsError: the environment's limit is no number of sessions.
    """
    text = os.environ.get(MAX_SESSIONS_VARIABLE, str(MAX_SESSIONS))
    if not text.isdecimal() or int(text) < 1:
        raise SettingsError(
            f"{MAX_SESSIONS_VARIABLE} '{text}' is no number of sessions: expected 1 or more, such "
            f"as {MAX_SESSIONS}"
        )
    return Sessions(int(text))


@contextmanager
def explained() -> Iterator[None]:
    """Turns FFmpeg's error into a `NvencError`, by what it logs in this thread meanwhile.

    One thread at a time; another waits.
    """
    with _log_lock, _logging(), av.logging.Capture(local=True) as logs:
        try:
            yield
        except (av.FFmpegError, OSError, ValueError, RuntimeError) as error:
            told = [one_line(text) for _, _, text in logs]
            passing = any(mark in line for mark in _PASSING for line in told)
            raise NvencError(reason(told, error), passing=passing) from error


@contextmanager
def _logging() -> Iterator[None]:
    """Lets FFmpeg log warnings, repeated ones too, and sets it back as it was."""
    level, skip = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.WARNING)
    av.logging.set_skip_repeated(False)
    try:
        yield
    finally:
        av.logging.set_level(level)
        av.logging.set_skip_repeated(skip)


def reason(told: list[str], error: Exception) -> str:
    """Says in words why an NVENC encoder failed.

    Args:
        told: what FFmpeg logged, line by line.
        error: what PyAV raised.

    Returns:
        A known failure as a sentence of ours, followed by FFmpeg's own words; else those alone.
    """
    for mark, meaning in _MEANINGS:
        for line in told:
            if mark in line:
                return f"{meaning}: {line}"
    # FFmpeg reports a missing driver as "operation not permitted".
    if not told and isinstance(error, PermissionError):
        return "no NVIDIA driver was found"
    return "; ".join(told) or one_line(error)
