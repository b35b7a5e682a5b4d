"""diffusers as a contestant makes the pictures and the file that the engine does."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.ours import Ours
from benchmarks.peers import Diffusers, conditions
from benchmarks.workload import Contestant, Keep, Workload, count_frames, make_workload, write_file

# The samplers of diffusers warn with the NumPy that is installed.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def test_its_pictures_and_its_file_are_those_of_the_engine(tmp_path: Path) -> None:
    work = make_workload(2, steps=4, size=(128, 128))
    peer = Diffusers(work, "fp32")
    asked = conditions(work, peer.pipeline)
    peer.prepare(asked)
    ours = Ours(work, "onnxruntime", "fp32", 4, asked[0])
    # A video's encoder takes NV12.
    theirs, expected = (
        _written(one, work, tmp_path / f"{name}.mp4")
        for name, one in (("theirs", peer), ("ours", ours))
    )
    assert expected.std() > 10
    assert np.abs(theirs - expected).mean() < 1
    theirs, expected = _rgb(peer), _rgb(ours)
    assert np.abs(theirs - expected).max() <= 1
    ours.close()


def _written(contestant: Contestant, work: Workload, path: Path) -> NDArray[np.float64]:
    write_file(contestant, work, path)
    assert count_frames(path) == work.num_frames
    with av.open(str(path)) as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    return np.stack(frames).astype(np.float64)


def _rgb(contestant: Contestant) -> NDArray[np.float64]:
    kept = Keep()
    contestant.render(kept)
    return np.stack(kept.frames).astype(np.float64)
