"""The maps that steer a job's frames through a ControlNet: which file is a frame's.

The engine reads them frame by frame, ahead of the device; front ends ask for their digest before
anything is rendered. The invariant: a frame whose `control_scale` is not 0 has a map of its own,
or is an error in a line.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.conditions.conditioning import ReadMap
from giffusion.engine.conditions.pictures import file_digest, read_picture
from giffusion.engine.encode.sequence import is_pattern, parse_pattern
from giffusion.engine.errors import InputError
from giffusion.engine.timelines.timeline import Timeline


def map_file(control: str, frame: int) -> Path:
    """Returns the file of a frame's map.

    Args:
        control: as `giffusion.engine.settings.RenderSettings` has it: a picture for all frames, or
            the pattern of a sequence's names, which is numbered from 0.
        frame: the frame.

    Raises:
        InputError: there is no such file.
    """
    path = Path(control)
    if is_pattern(path):
        path = path.with_name(parse_pattern(path).name(frame))
    try:
        is_there = path.exists()
    except (OSError, ValueError):
        is_there = True  # whoever reads it says in the system's words what is wrong with it
    if not is_there:
        raise InputError(
            f"frame {frame} has no map: {path} is missing; expected a picture by --control for "
            "every frame whose control_scale is not 0"
        )
    return path


def map_reader(control: str, size: tuple[int, int], resize: str = "crop") -> ReadMap:
    """Returns what reads the maps of a job, brought to its size as init pictures are.

    Args:
        control: as `map_file` takes it.
        size: (width, height) in pixels.
        resize: what is done where their shape is another.
    """

    @lru_cache(maxsize=1)
    def read(path: Path) -> NDArray[np.uint8]:
        return read_picture(path, size, resize)

    return lambda frame: read(map_file(control, frame))


def maps_digest(timeline: Timeline) -> str | None:
    """Returns the sha256 by which a plan says which maps it was made with, or None without maps.

    Of one picture it is the file's; of several that of their own in hexadecimal digits, one a line,
    in the order of their frames.

    Raises:
        InputError: a map is missing or cannot be read.
    """
    control = timeline.settings.control
    if control is None:
        return None
    steered = (plan.frame for plan in timeline if plan.control_scale)
    files = dict.fromkeys(map_file(control, frame) for frame in steered)
    digests = [file_digest(path) for path in files]
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(f"{digest}\n" for digest in digests).encode()).hexdigest()
