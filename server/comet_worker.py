"""The process that speaks with Comet: `python -m giffusion.server.comet_worker`.

`comet.py` starts it beside a render and sends it a JSON object a line; it answers in the same way.
comet_ml changes other packages when it is imported, prints, and waits for the network when a
process ends: all that happens here, where nothing is rendered. The invariant: whatever goes wrong
is one warning, and what was given is logged as far as it goes, also when the render is killed.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from giffusion.engine.errors import one_line
from giffusion.server.comet_frames import preview_step, read_frames, small, write_preview

if TYPE_CHECKING:
    from comet_ml import CometExperiment
    from PIL import Image

CAPTURED = (
    *("log_code", "log_graph", "parse_args", "log_git_metadata", "log_git_patch"),
    *("log_env_details", "log_env_gpu", "log_env_host", "log_env_cpu", "log_env_network"),
    *("log_env_disk", "auto_param_logging", "auto_metric_logging", "auto_output_logging"),
    *("auto_log_co2", "auto_histogram_tensorboard_logging"),
)
"""What Comet would gather by itself, of the code, the machine and its packages; all is off."""
_NICENESS = 10
_HEARTBEAT_FRAMES = 10


class _Failed(Exception):
    """Nothing more can be logged; its text says why."""


class _Remarks(logging.Handler):
    """Keeps the first error that comet_ml logs, which says it there and raises nothing."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.first: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        self.first = self.first or one_line(record.getMessage())


def main() -> None:
    """Logs what comes by standard input, to its end."""
    answers = _own_output()
    os.nice(_NICENESS)
    worker = _Worker(answers)
    for line in sys.stdin:
        try:
            worker.take(json.loads(line))
        except Exception as error:  # comet_ml, the network and files fail in all ways
            worker.say("warning", one_line(error)[:500])
    worker.end()
    # comet_ml's threads may still wait for a network, and would keep the process for minutes.
    os._exit(0)


class _Worker:
    def __init__(self, answers: TextIO) -> None:
        self._answers = answers
        self._remarks = _Remarks()
        self._experiment: CometExperiment | None = None
        self._where = ""
        self._seconds = 1.0

    def take(self, message: dict[str, Any]) -> None:
        """Logs what a message brings."""
        if message["event"] == "begin":
            self._open(message["target"], message["name"])
            self._begin(message)
        elif self._experiment is not None:
            self._finish(message)

    def say(self, kind: str, text: str) -> None:
        """Answers; to nobody, where the render is gone."""
        with suppress(OSError):
            print(json.dumps({kind: text}), file=self._answers, flush=True)

    def end(self) -> None:
        """Sends what is left to send."""
        if self._experiment is None:
            return
        self.say("stage", "ending")
        try:
            self._experiment.end()
        except Exception as error:
            self.say("warning", one_line(error)[:500])
            return
        if self._remarks.first is not None:
            self.say("warning", self._remarks.first[:500])
        self.say("note", self._where)

    def _open(self, target: dict[str, str | None], name: str) -> None:
        """Starts an experiment.

        Raises:
            _Failed: Comet cannot be reached, or does not let the user in.
        """
        import comet_ml

        logging.getLogger("comet_ml").addHandler(self._remarks)
        off: dict[str, Any] = {**dict.fromkeys(CAPTURED, False), "display_summary_level": 0}
        if target["folder"] is not None:
            self._experiment = comet_ml.OfflineExperiment(
                project_name="giffusion", offline_directory=target["folder"], **off
            )
            self._where = str(Path(target["folder"]) / f"{self._experiment.get_key()}.zip")
        else:
            experiment = comet_ml.Experiment(
                project_name=target["project"], workspace=target["workspace"], **off
            )
            if not experiment.alive:
                raise _Failed(self._remarks.first or "it cannot be reached")
            self._experiment, self._where = experiment, str(experiment.url)
        self._experiment.set_name(name)

    def _begin(self, message: dict[str, Any]) -> None:
        assert self._experiment is not None
        self._seconds = message["seconds"]
        log = self._experiment
        self._each(
            partial(log.log_parameters, message["parameters"]),
            *(
                partial(log.log_asset_data, text, name=name)
                for name, text in message["assets"].items()
            ),
            *(
                partial(log.log_asset, path, file_name=f"input/{Path(path).name}")
                for path in message["media"]
            ),
        )
        self.say("stage", "begun")

    def _finish(self, message: dict[str, Any]) -> None:
        assert self._experiment is not None
        log = self._experiment
        self._each(
            partial(log.log_parameters, message["parameters"]),
            partial(log.log_metrics, message["metrics"]),
        )
        if message["output"] is not None:
            path = Path(message["output"])
            self._each(
                partial(self._log_file, path),
                partial(self._log_frames, path, message["num_frames"]),
            )

    def _each(self, *steps: Callable[[], object]) -> None:
        """Takes steps of which none needs another; each that fails is a warning."""
        for step in steps:
            try:
                step()
            except Exception as error:  # comet_ml, the network and files fail in all ways
                self.say("warning", one_line(error)[:500])

    def _log_file(self, path: Path) -> None:
        assert self._experiment is not None
        # A sequence is there as its pictures.
        if path.is_file():
            self._experiment.log_asset(str(path), file_name=path.name)

    def _log_frames(self, path: Path, num_frames: int) -> None:
        """Logs each frame, its number as the step, and a small copy of them all."""
        assert self._experiment is not None
        preview: list[Image.Image] = []
        step = preview_step(num_frames)
        try:
            for index, frame in enumerate(read_frames(path)):
                self._experiment.log_image(frame, name=f"frame-{index:06d}.png", step=index)
                if index % step == 0:
                    preview.append(small(frame))
                if index % _HEARTBEAT_FRAMES == 0:
                    self.say("stage", f"frame {index}")
        finally:
            if preview:
                self._log_preview(preview)

    def _log_preview(self, frames: list[Image.Image]) -> None:
        assert self._experiment is not None
        folder = tempfile.mkdtemp(prefix="giffusion-comet-")
        path = Path(folder) / "preview.gif"
        write_preview(frames, path, self._seconds)
        # Read at once: the file is gone before an upload would begin.
        self._experiment.log_asset_data(path.read_bytes(), name=path.name)
        path.unlink()
        path.parent.rmdir()


def _own_output() -> TextIO:
    """Returns standard output for answers alone; what packages print goes nowhere."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    return answers


if __name__ == "__main__":
    main()
