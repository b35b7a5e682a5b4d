"""Times of onsets or beats to the key frames that are put there, and to their text.

Called by `giffusion audio`. The invariant: frames ascend, each stands once, and 0 and the last one
are always there. Nothing here imports NumPy.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from giffusion.engine.schedules.limits import round_half_up


@dataclass(frozen=True, slots=True)
class Mark:
    """A frame at which something begins.

    Args:
        frame: its number.
        time_s: when that begins, in seconds after the first frame; at most half a frame from
            the frame's own time.
    """

    frame: int
    time_s: Fraction


def marked_frames(times_s: Iterable[Fraction], fps: Fraction, num_frames: int) -> list[Mark]:
    """Returns the first frame, those nearest to some times, and the last one.

    Args:
        times_s: seconds after the first frame, not below 0; of several on one frame the first
            counts, and what is nearest to a frame behind the last one is left out.
        fps: frames a second.
        num_frames: 1 or more.
    """
    last = num_frames - 1
    marks = {0: Mark(0, Fraction(0))}
    for time_s in sorted(times_s):
        frame = round_half_up(time_s * fps)
        if frame <= last:
            marks.setdefault(frame, Mark(frame, time_s))
    marks.setdefault(last, Mark(last, last / fps))
    return [marks[frame] for frame in sorted(marks)]


def format_marks(marks: Iterable[Mark], fps: Fraction) -> str:
    """Writes marks as key-frame text, `12: 0.50s`: the times stand where prompts go.

    A comment above them says for which rate they are.
    """
    lines = (f"{mark.frame}: {float(mark.time_s):.2f}s\n" for mark in marks)
    return f"# {fps} frames a second\n" + "".join(lines)
