"""How a render reports itself: a progress bar on a terminal, or JSON lines."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Protocol

from tqdm import tqdm

from giffusion.engine.rendering import Progress, RenderResult
from giffusion.server.notes import note, warn

_FRAME_STAGES = ("frames", "file")


class Report(Protocol):
    """Told of everything that happens while a render runs."""

    def note(self, text: str) -> None:
        """Says what was decided."""

    def warn(self, text: str) -> None:
        """Says what the user may not have meant."""

    def progress(self, progress: Progress) -> None:
        """Takes how far the render is."""

    def done(self, result: RenderResult) -> None:
        """Takes what was made."""

    def engine(self, facts: Mapping[str, Any]) -> None:
        """Takes an engine that is there, as its manifest, its key and whether it was built now."""

    def __enter__(self) -> Report: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class TerminalReport:
    """A bar with frames/s and time left on standard error, where that is a terminal.

    Args:
        output: the file that is rendered, if one is.
    """

    def __init__(self, output: Path | None = None) -> None:
        self._output = output
        self._bar: tqdm[NoReturn] | None = None
        self._stage = ""

    def note(self, text: str) -> None:
        note(text)

    def warn(self, text: str) -> None:
        warn(text)

    def progress(self, progress: Progress) -> None:
        if self._bar is None or progress.stage != self._stage:
            self._open(progress)
        assert self._bar is not None
        self._bar.update(progress.done - self._bar.n)

    def done(self, result: RenderResult) -> None:
        self._close()
        width, height = result.size
        rate = result.num_frames / result.elapsed_s
        print(
            f"{result.path}: {result.num_frames} frames of {width}x{height} in "
            f"{result.elapsed_s:.1f} s, {rate:.1f} frames/s"
        )

    def engine(self, facts: Mapping[str, Any]) -> None:
        self._close()
        how = f"built in {facts['build_s']:.0f} s" if facts["built"] else "there already"
        print(f"{describe_engine(facts)}, {how}")

    def __enter__(self) -> TerminalReport:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def _open(self, progress: Progress) -> None:
        self._close()
        self._stage = progress.stage
        name = self._output.name if self._output else progress.stage
        label = {"frames": name, "file": "applying colours"}.get(progress.stage, progress.stage)
        unit = " frames" if progress.stage in _FRAME_STAGES else "%"
        self._bar = tqdm(
            total=progress.total, desc=label, unit=unit, disable=None, dynamic_ncols=True
        )

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class JsonReport:
    """One JSON object a line on standard output; `event` says what happened."""

    def __init__(self) -> None:
        self._began: float | None = None

    def note(self, text: str) -> None:
        self._print("note", text=text)

    def warn(self, text: str) -> None:
        self._print("warning", text=text)

    def progress(self, progress: Progress) -> None:
        if progress.stage not in _FRAME_STAGES:
            self._print("build", what=progress.stage, done=progress.done, total=progress.total)
            return
        # The first of these comes when everything is loaded.
        self._began = self._began or time.perf_counter()
        elapsed_s = time.perf_counter() - self._began
        left = progress.total - progress.done
        self._print(
            "progress",
            stage=progress.stage,
            done=progress.done,
            total=progress.total,
            frames_per_s=round(progress.done / elapsed_s, 3) if progress.done else None,
            left_s=round(elapsed_s * left / progress.done, 3) if progress.done else None,
        )

    def done(self, result: RenderResult) -> None:
        self._print(
            "done",
            path=str(result.path),
            num_frames=result.num_frames,
            size=list(result.size),
            elapsed_s=round(result.elapsed_s, 3),
            numerics=result.numerics,
        )

    def engine(self, facts: Mapping[str, Any]) -> None:
        self._print("engine", **facts)

    def __enter__(self) -> JsonReport:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            text = str(error) or "interrupted"
            self._print("error", text="; ".join([text, *getattr(error, "__notes__", [])]))

    def _print(self, event: str, **values: object) -> None:
        print(json.dumps({"event": event, **values}, ensure_ascii=False), flush=True)


def describe_engine(facts: Mapping[str, Any]) -> str:
    """Says in a line what an engine is, from its manifest and its key."""
    size = "" if facts["size"] is None else " {}x{}".format(*facts["size"])
    batches = ",".join(map(str, facts["batches"]))
    return (
        f"{facts['key']}  {facts['model']} {facts['stage']} {facts['precision']}{size} "
        f"batch {batches} for {','.join(facts['devices'])}, {facts['package']} "
        f"{facts['version']}, {facts['plan_bytes'] / 2**20:.0f} MiB"
    )
