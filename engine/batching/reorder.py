"""Finished frames that wait until those before them are finished.

`jobs.py` puts a job's frames in order with it. The invariant: a frame comes out once, and those of
chains that ran far ahead wait on disk, so that memory does not grow with them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from giffusion.engine.batching.frame_file import FrameFile
from giffusion.engine.frames import Frame


class Waiting(Protocol):
    """Frames that wait, by their number."""

    def put(self, index: int, frame: Frame) -> None:
        """Keeps a frame."""

    def pop(self, index: int) -> Frame | None:
        """Returns a frame and forgets it, or None where it is not there."""

    def close(self) -> None:
        """Drops all of them."""


class InMemory:
    """Frames that wait where they are: for jobs that have few in flight."""

    def __init__(self) -> None:
        self._frames: dict[int, Frame] = {}

    def put(self, index: int, frame: Frame) -> None:
        self._frames[index] = frame

    def pop(self, index: int) -> Frame | None:
        return self._frames.pop(index, None)

    def close(self) -> None:
        self._frames.clear()


class OnDisk:
    """Frames that wait in a file without a name: for jobs of several chains.

    Args:
        folder: where the space is taken.
        shape: of each frame.

    Raises:
        OutputError: no file can be made there.
        DiskFullError: not even an empty file fits.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...]) -> None:
        self._file = FrameFile(folder, shape)
        self._places: dict[int, int] = {}
        self._free: list[int] = []

    def put(self, index: int, frame: Frame) -> None:
        assert isinstance(frame, np.ndarray), "sinks of several chains take arrays"
        place = self._free.pop() if self._free else len(self._places)
        self._file.write(place, frame, index)
        self._places[index] = place

    def pop(self, index: int) -> Frame | None:
        place = self._places.pop(index, None)
        if place is None:
            return None
        frame = self._file.read(place, index)
        self._free.append(place)
        return frame

    def close(self) -> None:
        self._file.close()
