"""A picture of a sound, its curve and its key frames.

Called by `giffusion audio --plot`. The only module that imports matplotlib, and only when it draws;
the invariant: no global state of matplotlib is used, and nothing is shown on a screen.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from fractions import Fraction
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from giffusion.engine.audio.analysis import Analysis
from giffusion.engine.audio.curve import EnergyCurve
from giffusion.engine.audio.extra import needs_audio
from giffusion.engine.audio.key_frames import Mark
from giffusion.engine.encode.output import OutputFile, check_place
from giffusion.engine.encode.place import cannot_begin
from giffusion.engine.errors import OutputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (1600, 600)
_DPI = 100
_SOUND, _CURVE, _MOTION, _MARK, _GREY = "#9db8d2", "#d9662b", "#1f6fb4", "#333333", "#c8c8c8"
# Pixels that a letter of a label takes; key frames that are closer than labels share one.
_LETTER_PIXELS = 8
# With more key frames the motion cannot be told apart, and their lines would hide the curve.
_MOST_MARKS = 100


def check_plot(path: Path, *, force: bool) -> None:
    """Checks, before anything is analysed, that a plot can be drawn and put at a path.

    Raises:
        OutputError: it cannot be put there.
        RuntimeUnavailableError: matplotlib is not installed.
    """
    if path.suffix.lower() != ".png":
        raise OutputError(f"{path} is no name of a plot: expected one that ends in .png")
    check_place(path, force=force)
    with needs_audio("a plot cannot be drawn"):
        import matplotlib.figure  # noqa: F401 - only whether it is there


def write_plot(
    path: Path,
    analysis: Analysis,
    marks: Sequence[Mark],
    fps: Fraction,
    title: str,
    *,
    force: bool = False,
) -> None:
    """Draws the sound's samples, its curve and its key frames, as a PNG of SIZE pixels.

    Args:
        path: where it goes.
        analysis: of the sound.
        marks: key frames, ascending.
        fps: frames a second.
        title: a line above it.
        force: replace what is there.

    Raises:
        OutputError: it cannot be written there.
    """
    content = BytesIO()
    with warnings.catch_warnings():
        # A title in letters that the font has not is drawn as boxes.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure = _drawn(analysis, marks, fps, title)
        # No version and no date, so that the same sound gives the same bytes.
        figure.savefig(content, format="png", metadata={"Software": None})
    output = OutputFile(path, force=force)
    try:
        output.temp.write_bytes(content.getvalue())
        output.publish()
    except OSError as error:
        raise cannot_begin(error, output.folder) from error
    finally:
        output.discard()


def _drawn(analysis: Analysis, marks: Sequence[Mark], fps: Fraction, title: str) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(SIZE[0] / _DPI, SIZE[1] / _DPI), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    printable = "".join(letter if letter.isprintable() else "?" for letter in title)
    # A name may hold what looks like a formula.
    figure.suptitle(printable, fontsize=12, parse_math=False)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
    duration_s = float(max(analysis.duration_s, len(analysis.curve) / fps))
    _draw_sound(above, analysis)
    _draw_curve(below, analysis.curve, fps)
    if len(marks) <= _MOST_MARKS:
        _draw_motion(below, analysis.curve, marks, fps)
    _draw_marks((above, below), marks, fps, duration_s)
    above.set_xlim(0, duration_s)
    return figure


def _draw_sound(axes: Axes, analysis: Analysis) -> None:
    low, high = analysis.peaks
    edges_s = np.linspace(0, float(analysis.duration_s), len(low) + 1)[:-1]
    axes.fill_between(edges_s, low, high, step="post", color=_SOUND, linewidth=0.5)
    largest = max(float(np.abs(analysis.peaks).max(initial=0)), 1e-3)
    axes.set_ylim(-1.05 * largest, 1.05 * largest)
    axes.set_ylabel("sound")
    axes.grid(color=_GREY, linewidth=0.5, axis="y")


def _draw_curve(axes: Axes, curve: EnergyCurve, fps: Fraction) -> None:
    times_s = np.arange(len(curve)) / float(fps)
    axes.fill_between(times_s, curve.values, color=_CURVE, alpha=0.25, linewidth=0)
    axes.plot(times_s, curve.values, color=_CURVE, linewidth=1.2, label="curve")
    axes.set_ylim(0, 1.05)
    axes.set_xlabel("seconds")
    axes.grid(color=_GREY, linewidth=0.5, axis="y")


def _draw_motion(axes: Axes, curve: EnergyCurve, marks: Sequence[Mark], fps: Fraction) -> None:
    """Draws how far frames have moved from each key frame to the next."""
    times_s: list[float] = []
    weights: list[float] = []
    for start, end in pairwise(mark.frame for mark in marks):
        frames = range(start, end + 1)
        # The line breaks off at a key frame, where the next one begins at 0.
        times_s += [*(float(frame / fps) for frame in frames), math.nan]
        weights += [*(curve.weight(frame, start, end) for frame in frames), math.nan]
    axes.plot(times_s, weights, color=_MOTION, linewidth=1, label="motion")
    axes.legend(loc="upper right", framealpha=0.9)


def _draw_marks(
    both: tuple[Axes, Axes], marks: Sequence[Mark], fps: Fraction, duration_s: float
) -> None:
    """Draws a line at each key frame, and its number above where there is room."""
    times_s = [float(mark.frame / fps) for mark in marks]
    bottom = 0.0 if len(marks) <= _MOST_MARKS else 0.95
    for axes in both:
        axis = axes.get_xaxis_transform()
        axes.vlines(times_s, bottom, 1, _MARK, linewidth=0.8, alpha=0.6, transform=axis)
    room_s = duration_s * _LETTER_PIXELS * (len(str(marks[-1].frame)) + 2) / SIZE[0]
    labelled, last_s = [], -math.inf
    for mark, time_s in zip(marks, times_s, strict=True):
        if time_s >= last_s + room_s:
            labelled.append((time_s, str(mark.frame)))
            last_s = time_s
    frames = both[0].secondary_xaxis("top")
    frames.set_xticks([time_s for time_s, _ in labelled], [text for _, text in labelled])
    frames.set_xlabel("key frames")
