"""Who has to wait for librosa is told, in processes of their own that it is new to."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path
from zipfile import ZipFile

import pytest
from numba.core import event

from giffusion.engine.audio.analysis import analyse
from giffusion.engine.audio.compiling import BEAT_NOTE, NOTE, compiling
from giffusion.engine.audio.options import AudioOptions
from tests.engine.audio.sounds import clicks, write_wav

_ANALYSE = """
import sys
from fractions import Fraction
from pathlib import Path
from giffusion.engine.audio.analysis import analyse, energy_curve
from giffusion.engine.audio.options import AudioOptions
from giffusion.engine.errors import GiffusionError

def note(text):
    print("note:", text)
    if sys.argv[3:]:
        sys.exit()

song, fps, options = Path(sys.argv[1]), Fraction(24), AudioOptions(component="percussive")
try:
    energy_curve(song, fps, options, note)
    print("onset modules:", [name for name in sys.modules if name == "librosa.util.utils"])
    if sys.argv[2] != "curve":
        heard = analyse(song, fps, options, note)
        print("onsets:", len(heard.onsets()))
        if sys.argv[2] == "beats":
            heard.beats(note)
except GiffusionError as error:
    print("error:", error)
"""


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_wav(tmp_path_factory.mktemp("sound") / "song.wav", clicks([0.5, 1.0, 1.5], 2))


def analysed(song: Path, *words: str, **environment: str) -> list[str]:
    command = [sys.executable, "-c", _ANALYSE, str(song), *words]
    done = subprocess.run(
        command, capture_output=True, check=True, text=True, env=os.environ | environment
    )
    return done.stdout.splitlines()


def a_pass_over(module: str, function: str) -> AbstractContextManager[None]:
    """What Numba does while it compiles."""
    data = {"module": module, "qualname": function}
    opened: AbstractContextManager[None] = event.trigger_event("numba:run_pass", data)
    return opened


def test_a_curve_needs_nothing_that_is_compiled(song: Path, tmp_path: Path) -> None:
    found = analysed(song, "curve", NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    assert found == ["onset modules: []"]
    assert not list((tmp_path / "cache").rglob("*.nbc"))


def test_the_first_time_is_said_before_it_is_waited_for(song: Path, tmp_path: Path) -> None:
    # Ends with the first note, so that the test need not wait.
    found = analysed(song, "onsets", "exit", NUMBA_CACHE_DIR=str(tmp_path))
    assert found[1:] == [f"note: {NOTE}"]


def test_later_times_are_not_said(song: Path) -> None:
    analyse(song, Fraction(24), AudioOptions()).beats()
    assert analysed(song, "beats") == ["onset modules: []", "onsets: 3"]


@pytest.mark.parametrize(
    ("module", "function", "notes"),
    [
        ("librosa.util.utils", "__peak_pick", [NOTE]),
        ("librosa.beat", "__beat_track_dp", [BEAT_NOTE]),
        ("librosa.beat", "__beat_local_score", []),
        ("numba.np.arraymath", "np_median", []),
        ("somebody.elses", "function", []),
    ],
)
def test_what_will_not_be_compiled_again_is_said_once(
    module: str, function: str, notes: list[str]
) -> None:
    heard: list[str] = []
    with compiling(heard.append):
        for _ in range(2):
            with a_pass_over(module, function):
                pass
    with a_pass_over(module, function):
        pass
    assert heard == notes


def test_code_is_kept_in_the_cache_where_librosa_cannot_be_written(tmp_path: Path) -> None:
    with ZipFile(tmp_path / "packages.zip", "w") as packages:
        packages.writestr("librosa/__init__.py", "")
        packages.writestr("numba/__init__.py", "")
        packages.writestr("numba/core/__init__.py", "")
    code = (
        "import sys, os; sys.path.insert(0, sys.argv[1])\n"
        "from giffusion.engine.audio.compiling import compiling\n"
        "try:\n"
        "    with compiling(): pass\n"
        "except ImportError:\n"
        "    print(os.environ['NUMBA_CACHE_DIR'])\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "packages.zip")]
    for given, expected in (({}, tmp_path / "numba"), ({"NUMBA_CACHE_DIR": "mine"}, "mine")):
        environment = os.environ | {"GIFFUSION_CACHE": str(tmp_path)} | given
        done = subprocess.run(command, capture_output=True, check=True, text=True, env=environment)
        assert done.stdout == f"{expected}\n"


def test_code_that_cannot_be_kept_ends_in_a_line(song: Path) -> None:
    [line] = analysed(song, "onsets", NUMBA_CACHE_LOCATOR_CLASSES="IPythonCacheLocator")
    assert line.startswith("error: librosa cannot keep its compiled code: cannot cache function")
    assert line.endswith("; set NUMBA_CACHE_DIR to a folder that can be written")
