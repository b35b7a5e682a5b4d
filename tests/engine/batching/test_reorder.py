"""Frames that wait for their turn: each comes out once, as it went in, from memory or disk."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from giffusion.engine.batching.frame_file import FrameFile
from giffusion.engine.batching.reorder import InMemory, OnDisk
from giffusion.engine.errors import DiskFullError, OutputError

SHAPE = (2, 3, 3)


def frame(index: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.full(SHAPE, index, np.uint8)


@given(st.lists(st.integers(0, 30), max_size=80))
def test_what_waits_is_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, calls: list[int]
) -> None:
    on_disk = OnDisk(tmp_path_factory.getbasetemp(), SHAPE)
    for waiting in (InMemory(), on_disk):
        expected: dict[int, int] = {}
        for index in calls:
            if index in expected:
                found = waiting.pop(index)
                assert found is not None
                np.testing.assert_array_equal(found, frame(expected.pop(index)))
            else:
                waiting.put(index, frame(index))
                expected[index] = index
            assert waiting.pop(31) is None
        for index in list(expected):
            np.testing.assert_array_equal(waiting.pop(index), frame(index))
        waiting.close()


def test_places_are_used_again(tmp_path: Path) -> None:
    largest: list[int] = []
    waiting = OnDisk(tmp_path, SHAPE)
    write = waiting._file.write
    waiting._file.write = lambda place, *rest: largest.append(place) or write(place, *rest)  # type: ignore[method-assign,func-returns-value]
    for index in range(100):
        waiting.put(index, frame(index))
        if index >= 3:
            assert waiting.pop(index - 3) is not None
    assert max(largest) == 3
    waiting.close()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        OnDisk(tmp_path / "missing", SHAPE)


def test_a_full_disk_says_so(tmp_path: Path) -> None:
    class Full:
        def seek(self, at: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    file = FrameFile(tmp_path, SHAPE)
    file._file.close()
    file._file = Full()  # type: ignore[assignment]
    with pytest.raises(DiskFullError):
        file.write(0, frame(0), 0)
    file.close()
