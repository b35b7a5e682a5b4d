"""librosa's compiled code: where it is kept, and that somebody is told before it is waited for.

`with_librosa.py` imports librosa within `compiling`. Numba compiles parts of librosa when they are
first imported and keeps them; the invariant: nobody is told that who has not to wait. The only
module that imports Numba.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from giffusion.engine.errors import RuntimeUnavailableError, one_line
from giffusion.engine.notes import OnNote
from giffusion.engine.places import cache_folder

if TYPE_CHECKING:
    from numba.core.event import Event, Listener

FOLDER = "NUMBA_CACHE_DIR"
NOTE = "librosa compiles its code, once: this takes about 20 s"
BEAT_NOTE = "librosa compiles its beat tracker, once: this takes about 10 s"
# librosa does not let Numba keep this one; it takes a second each time.
_NEVER_KEPT = "__beat_local_score"


@contextmanager
def compiling(on_note: OnNote | None = None) -> Iterator[None]:
    """Prepares an import of librosa.

    Args:
        on_note: told before something is compiled that will not have to be the next time.

    Raises:
        ModuleNotFoundError: librosa is not installed.
        RuntimeUnavailableError: there is no folder that compiled code can be kept in.
    """
    _choose_folder()
    from numba.core import event

    try:
        with event.install_listener("numba:run_pass", _listener(on_note)):
            yield
    except RuntimeError as error:
        if "cannot cache function" not in str(error):
            raise
        raise RuntimeUnavailableError(
            f"librosa cannot keep its compiled code: {one_line(error)}; set {FOLDER} to a folder "
            "that can be written"
        ) from None


def _choose_folder() -> None:
    """Has code kept in giffusion's cache, where it cannot be kept beside librosa."""
    if FOLDER in os.environ or "numba" in sys.modules:
        return
    librosa = find_spec("librosa")
    if librosa is None or librosa.origin is None:
        return
    if not os.access(Path(librosa.origin).parent, os.W_OK):
        # Who has no home has what Numba chooses.
        with suppress(RuntimeError):
            os.environ[FOLDER] = str(cache_folder() / "numba")


def _listener(on_note: OnNote | None) -> Listener:
    from numba.core.event import Listener

    class Teller(Listener):
        def __init__(self) -> None:
            self._is_told = False

        def on_start(self, event: Event) -> None:
            module, name = event.data["module"], event.data["qualname"]
            # What librosa's functions call is compiled within them.
            if on_note and not self._is_told and _is_kept(module, name):
                self._is_told = True
                on_note(BEAT_NOTE if module == "librosa.beat" else NOTE)

        def on_end(self, event: Event) -> None:
            pass

    return Teller()


def _is_kept(module: str, function: str) -> bool:
    return module.startswith("librosa.") and function != _NEVER_KEPT
