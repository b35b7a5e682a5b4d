"""Renders logged to Comet, without the render noticing: `open_tracker`.

`giffusion render --comet` opens a tracker before it loads anything, tells it how the render begins
and ends, and closes it. A process of its own does the work, see `comet_worker.py`; a thread of its
own feeds it. The invariant: once a tracker is open nothing that happens to it raises; it is said in
a line, and on the thread that calls.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic
from typing import Any

from giffusion.engine.errors import RuntimeUnavailableError, one_line
from giffusion.engine.notes import OnNote
from giffusion.engine.rendering import RenderResult
from giffusion.engine.timelines.timeline import Timeline
from giffusion.server.comet_facts import begin_facts, fail_facts, finish_facts
from giffusion.server.comet_target import CometTarget, parse_target

Facts = dict[str, Any]
SILENCE_S = 120.0
"""Seconds without a word of the worker after which it is given up."""
ENDING_S = 600.0
"""The same, once all that is left to do is to send."""
INTERRUPTED_S = 20.0
"""All seconds that are waited for a render that the user stopped, whatever the worker says."""
_EXIT_S = 5.0
_WORKER = "giffusion.server.comet_worker"
# comet_ml would change other packages as they are imported.
_ENVIRONMENT = {"COMET_DISABLE_AUTO_LOGGING": "1", "PYTHONIOENCODING": "utf-8"}


def open_tracker(
    target: str, *, on_warning: OnNote | None = None, on_note: OnNote | None = None
) -> Tracker:
    """Opens what logs a render.

    Args:
        target: `[WORKSPACE/]PROJECT`, with the key from COMET_API_KEY or Comet's own settings; or
            `offline:FOLDER`, which is made.
        on_warning: told in a line what could not be logged.
        on_note: told in a line where the render was logged.

    Raises:
        SettingsError: the target names no project and no folder.
        OutputError: the folder cannot be made.
        RuntimeUnavailableError: comet_ml is not installed.
    """
    place = parse_target(target)
    _check_installed()
    return Tracker(place, on_warning or _ignored, on_note or _ignored)


class Tracker:
    """Logs one render; each method returns at once but `close`, and none raises.

    Args:
        target: where to.
        on_warning: see `open_tracker`.
        on_note: see `open_tracker`.
    """

    def __init__(self, target: CometTarget, on_warning: OnNote, on_note: OnNote) -> None:
        self._target, self._on_warning, self._on_note = target, on_warning, on_note
        self._messages: SimpleQueue[Facts | None] = SimpleQueue()
        self._answers: SimpleQueue[dict[str, str] | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._worker: subprocess.Popen[str] | None = None
        self._num_frames = 1
        self._paths: tuple[str | Path, ...] = ()
        self._is_interrupted = False
        self._is_over = False
        self._warned: set[str] = set()

    def begin(
        self,
        timeline: Timeline,
        *,
        model: str,
        output: Path,
        media: Sequence[Path] = (),
        settings_file: str | None = None,
    ) -> None:
        """Logs what is going to be rendered.

        Args:
            timeline: the plan, with its settings.
            model: its name or folder.
            output: the file that will be there.
            media: pictures, films and sounds that the render starts from.
            settings_file: the text of `giffusion.toml`, where there is one; without folders.
        """
        facts = self._made(
            lambda: begin_facts(
                timeline,
                model=model,
                output=output,
                media=tuple(media),
                settings_file=settings_file,
            )
        )
        if facts is None:
            return
        self._num_frames, self._paths = len(timeline), (model, output, *media)
        if timeline.settings.control is not None:
            self._paths += (timeline.settings.control,)
        seconds = float(len(timeline) / timeline.settings.fps)
        place = asdict(self._target)
        self._messages.put({"event": "begin", "target": place, "seconds": seconds, **facts})
        # A daemon: a worker that hangs does not keep the program.
        self._thread = Thread(target=self._feed, name="giffusion-comet", daemon=True)
        self._thread.start()

    def finish(self, result: RenderResult) -> None:
        """Logs what was rendered: its frames, the file and a preview."""
        self._num_frames = result.num_frames
        self._send(lambda: finish_facts(result))

    def fail(self, error: BaseException) -> None:
        """Logs that the render ended early, and the frames that were kept, if any."""
        if isinstance(error, KeyboardInterrupt):
            self._is_interrupted = True
        self._send(lambda: fail_facts(error, self._paths))

    def close(self) -> None:
        """Waits until all is logged, or until nothing more comes of it."""
        if self._thread is None:
            return
        self._messages.put(None)
        try:
            self._wait()
        except Exception as error:  # never into the render, which may be a success
            self._warn(f"{type(error).__name__}: {one_line(error)}")
        finally:
            self._thread = None
            self._reap()

    def _send(self, make: Callable[[], Facts]) -> None:
        facts = self._made(make)
        if facts is not None and self._thread is not None:
            self._messages.put({"event": "finish", "num_frames": self._num_frames, **facts})
        self._listen()

    def _made(self, make: Callable[[], Facts]) -> Facts | None:
        try:
            return make()
        except Exception as error:  # never into the render
            self._warn(f"{type(error).__name__}: {one_line(error)}")
            return None

    def _feed(self) -> None:
        """Starts the worker and passes it all messages; on a thread, as its pipe may be full."""
        try:
            self._worker = _started()
            assert self._worker.stdin is not None
            Thread(target=self._hear, args=(self._worker,), daemon=True).start()
            # A worker that has failed reads no more, and has said why.
            with suppress(BrokenPipeError), self._worker.stdin as pipe:
                while (message := self._messages.get()) is not None:
                    pipe.write(json.dumps(message) + "\n")
                    pipe.flush()
        except Exception as error:
            self._answers.put({"warning": f"{type(error).__name__}: {one_line(error)}"})
            self._answers.put(None)

    def _hear(self, worker: subprocess.Popen[str]) -> None:
        assert worker.stdout is not None
        with suppress(Exception), worker.stdout as pipe:
            for line in pipe:
                self._answers.put(json.loads(line))
        self._answers.put(None)

    def _wait(self) -> None:
        limit_s = INTERRUPTED_S if self._is_interrupted else SILENCE_S
        deadline = monotonic() + limit_s
        while not self._is_over:
            if (left_s := deadline - monotonic()) <= 0:
                after = "" if self._is_interrupted else " without an answer"
                self._warn(f"gave up after {limit_s:.0f} s{after}")
                return
            with suppress(Empty):
                answer = self._answers.get(timeout=left_s)
                self._take(answer)
                if self._is_interrupted:
                    continue  # no answer makes the user wait longer
                limit_s = ENDING_S if answer == {"stage": "ending"} else limit_s
                deadline = monotonic() + limit_s

    def _reap(self) -> None:
        """Ends a worker that does not end by itself."""
        if self._worker is None:
            return
        if self._is_over:
            with suppress(subprocess.TimeoutExpired):
                self._worker.wait(_EXIT_S)
        self._worker.kill()
        self._worker.wait()

    def _listen(self) -> None:
        """Takes what was answered meanwhile."""
        with suppress(Empty):
            while not self._is_over:
                self._take(self._answers.get_nowait())

    def _take(self, answer: dict[str, str] | None) -> None:
        if answer is None:
            self._is_over = True
        elif "warning" in answer:
            self._warn(answer["warning"])
        elif "note" in answer:
            self._on_note(f"comet: logged to {answer['note']}")

    def _warn(self, reason: str) -> None:
        """Says once that not all is logged: what follows from the first reason is not told."""
        if not self._warned:
            self._on_warning(f"comet: not all of the render is logged: {reason}")
        self._warned.add(reason)


def _started() -> subprocess.Popen[str]:
    return subprocess.Popen(
        # Not from the user's folder: a file there could have the name of a package.
        [sys.executable, "-P", "-m", _WORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | _ENVIRONMENT,
        encoding="utf-8",
        errors="backslashreplace",
        # What interrupts the render lets the worker end what it does.
        start_new_session=True,
    )


def _check_installed() -> None:
    try:
        found = find_spec("comet_ml") is not None
    except ImportError:
        found = False
    if not found:
        raise RuntimeUnavailableError(
            "--comet does not work here: No module named 'comet_ml'; pip install 'giffusion[comet]'"
        )


def _ignored(line: str) -> None:
    """Takes what nobody asked for."""
