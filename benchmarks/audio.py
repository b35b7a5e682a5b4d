"""`python -m benchmarks.audio`: how fast sound is analysed, against librosa's defaults.

Each contestant reads the same file, takes a component of it, finds onsets and makes a mel
spectrogram of one value a frame. Every figure is a process of its own: the first with an empty
cache of compiled code, the next one with what that left; the second analysis in a process is the
steady speed. How far the results agree is measured too.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import machine, write_result
from benchmarks.report import output_path, parser, print_table
from benchmarks.song import write_song

FPS = Fraction(24000, 1001)
COMPONENTS = ("both", "percussive", "harmonic")
BPM = 120
Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark, or in a process of its own one part of it."""
    options = _options(arguments)
    if options.part:
        contestant, component, path = options.part
        print(json.dumps(_PARTS[contestant](component, Path(path))))
        return
    seconds = 20 if options.quick else options.seconds
    names = ("giffusion",) if options.quick else ("giffusion", "librosa")
    with tempfile.TemporaryDirectory() as folder:
        song = write_song(Path(folder) / "song.wav", seconds, BPM)
        measured = _quickly if options.quick else _measured
        rows = [measured(name, part, song, seconds) for part in COMPONENTS for name in names]
        agreement = None if options.quick else _in_a_process("agreement", "both", song, folder)
    header = [*list(rows[0])[:2], "first ever s", "first s", "times real time", "peak MiB"]
    print_table(
        f"{seconds} s of sound, {FPS} frames/s", header, [list(row.values()) for row in rows]
    )
    if agreement is not None:
        print_table("agreement with librosa", ["", ""], list(agreement.items()))
    write_result(
        output_path("audio", options),
        {
            "benchmark": "audio",
            "machine": machine(),
            "seconds": seconds,
            "fps": str(FPS),
            "contestants": rows,
            "agreement": agreement,
        },
    )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    made = parser("audio", "Measures the analysis of sound.")
    made.add_argument("--seconds", type=int, default=240, help="length of the sound (default: 240)")
    made.add_argument("--part", nargs=3, help=argparse.SUPPRESS)
    return made.parse_args(arguments)


def _measured(contestant: str, component: str, song: Path, seconds: int) -> Row:
    print(f"{contestant}, {component}", flush=True)
    with tempfile.TemporaryDirectory() as cache:
        cold = _in_a_process(contestant, component, song, cache)
        warm = _in_a_process(contestant, component, song, cache)
    return _row(contestant, component, seconds, cold["first_s"], warm)


def _quickly(contestant: str, component: str, song: Path, seconds: int) -> Row:
    """Measures without compiling anything again."""
    warm = _in_a_process(contestant, component, song, None)
    return _row(contestant, component, seconds, None, warm)


def _row(contestant: str, component: str, seconds: int, cold_s: float | None, warm: Row) -> Row:
    return {
        "contestant": contestant,
        "component": component,
        "first_ever_s": cold_s,
        "first_s": warm["first_s"],
        "times_real_time": round(seconds / warm["steady_s"]),
        "peak_mib": warm["peak_mib"],
    }


def _in_a_process(contestant: str, component: str, song: Path, cache: str | None) -> Row:
    command = [sys.executable, "-m", "benchmarks.audio", "--part", contestant, component, str(song)]
    environment = os.environ | ({} if cache is None else {"NUMBA_CACHE_DIR": cache})
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment)
    values: Row = json.loads(done.stdout.splitlines()[-1])
    return values


def _timed(analyse: Callable[[], object]) -> Row:
    """Runs an analysis twice; imports belong to the first."""
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        analyse()
        seconds.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"first_s": round(seconds[0], 2), "steady_s": seconds[1], "peak_mib": round(peak)}


def _ours(component: str, song: Path) -> Row:
    def run() -> object:
        from giffusion.engine.audio.analysis import analyse
        from giffusion.engine.audio.options import AudioOptions

        return analyse(song, FPS, AudioOptions(component=component)).onsets()

    return _timed(run)


def _librosas(component: str, song: Path) -> Row:
    def run() -> object:
        import librosa

        samples, rate = librosa.load(song, sr=22050)
        if component != "both":
            harmonic, percussive = librosa.effects.hpss(samples)
            samples = percussive if component == "percussive" else harmonic
        # The hop is rounded, as those do who use it so; its error adds up.
        hop = int(rate / FPS)
        curve = librosa.feature.melspectrogram(y=samples, sr=rate, hop_length=hop).max(axis=0)
        return curve, librosa.onset.onset_detect(y=samples, sr=rate, units="time")

    return _timed(run)


def _agreement(_: str, song: Path) -> Row:
    """Compares on one minute what both compute alike, and says how near times are."""
    import librosa

    from giffusion.engine.audio.analysis import analyse
    from giffusion.engine.audio.options import AudioOptions
    from giffusion.engine.audio.separation import separated

    samples, rate = librosa.load(song, sr=22050, duration=60)
    parts = librosa.effects.hpss(samples, margin=2)
    differences = []
    for name, theirs in zip(("harmonic", "percussive"), parts, strict=True):
        ours = np.concatenate(list(separated([samples], AudioOptions(component=name, margin=2))))
        differences.append(float(np.abs(ours - theirs).max()))
    heard = analyse(song, FPS, AudioOptions(end_s=Fraction(60)))
    tempo, beats = librosa.beat.beat_track(y=samples, sr=rate, units="time")
    onsets = librosa.onset.onset_detect(y=samples, sr=rate, units="time")
    times = {
        "onsets giffusion": (np.array(heard.onsets(), float), 30 / BPM),
        "onsets librosa": (onsets, 30 / BPM),
        "beats giffusion": (np.array(heard.beats(), float), 60 / BPM),
        "beats librosa": (beats, 60 / BPM),
    }
    return {
        "components: largest difference": max(differences),
        "tempo, giffusion": round(heard.tempo() or 0, 1),
        "tempo, librosa": round(float(np.squeeze(tempo)), 1),
        **{
            f"{name}: {key}": value
            for name, (found, step_s) in times.items()
            for key, value in _errors(found, step_s).items()
        },
    }


def _errors(found: NDArray[np.float64], step_s: float) -> Row:
    """Compares times with the song's, which has an onset each half beat."""
    true = np.arange(0, 60, step_s)
    nearest = np.abs(found[:, None] - true).min(axis=1)
    missed = np.abs(found[:, None] - true).min(axis=0) > 0.05
    return {
        "mean error ms": round(1000 * float(nearest.mean()), 1),
        "largest error ms": round(1000 * float(nearest.max()), 1),
        "missed": int(missed.sum()),
    }


_PARTS: dict[str, Callable[[str, Path], Row]] = {
    "giffusion": _ours,
    "librosa": _librosas,
    "agreement": _agreement,
}

if __name__ == "__main__":
    main()
