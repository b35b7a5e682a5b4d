"""`giffusion audio`: a sound to key frames that are ready to be given prompts."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from fractions import Fraction

from giffusion.engine.audio.analysis import Analysis, analyse
from giffusion.engine.audio.key_frames import Mark, format_marks, marked_frames
from giffusion.engine.audio.options import AudioOptions
from giffusion.engine.audio.plot import check_plot, write_plot
from giffusion.engine.values import one_of
from giffusion.server.audio_options import DETECTORS
from giffusion.server.notes import note, warn

_FIELDS = {
    "component": "component",
    "margin": "margin",
    "reduction": "reduction",
    "band": "band",
    "smooth": "smooth",
    "start": "start_s",
    "end": "end_s",
}


def run(options: argparse.Namespace) -> None:
    """Prints key frames where something begins, and draws them with `--plot`."""
    one_of("detect", options.detect, DETECTORS)
    heard = AudioOptions(
        **{
            field: getattr(options, name)
            for name, field in _FIELDS.items()
            if getattr(options, name) is not None
        }
    )
    if options.plot is not None:
        check_plot(options.plot, force=options.force)
    analysis = analyse(options.file, options.fps, heard, note)
    times_s = analysis.onsets() if options.detect == "onsets" else analysis.beats(note)
    marks = marked_frames(times_s, options.fps, len(analysis.curve))
    if not any(analysis.curve.values):
        warn(f"{options.file}: only silence is heard")
    if options.plot is not None:
        title = _title(options, heard, len(times_s))
        write_plot(options.plot, analysis, marks, options.fps, title, force=options.force)
    if options.json:
        print(json.dumps(_facts(analysis, marks, options.fps)))
    else:
        print(format_marks(marks, options.fps), end="")


def _facts(analysis: Analysis, marks: Sequence[Mark], fps: Fraction) -> dict[str, object]:
    return {
        "fps": str(fps),
        "num_frames": len(analysis.curve),
        "duration_s": float(analysis.duration_s),
        "tempo_bpm": analysis.tempo(),
        "key_frames": [{"frame": mark.frame, "time_s": float(mark.time_s)} for mark in marks],
        "curve": analysis.curve.values,
    }


def _title(options: argparse.Namespace, heard: AudioOptions, count: int) -> str:
    band = "" if heard.band is None else f", {heard.band[0]:g} to {heard.band[1]:g} Hz"
    return (
        f"{options.file.name}: {heard.component}{band}, {heard.reduction}, {options.fps} frames/s, "
        f"{count} {options.detect}"
    )
