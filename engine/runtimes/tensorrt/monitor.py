"""How far a build is, as one percentage out of TensorRT's tree of phases; and how to stop it.

Called by `build.py`. The invariant: the percentage never falls.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

TOTAL = 100
"""Steps that a build's progress is counted in."""


@dataclass(slots=True)
class _Phase:
    parent: str | None
    num_steps: int
    done: int = 0


class Phases:
    """The phases that are under way. A phase that others belong to does them as its next step."""

    def __init__(self) -> None:
        self._phases: dict[str, _Phase] = {}
        self._percent = 0

    def start(self, name: str, parent: str | None, num_steps: int) -> None:
        """Begins a phase; the first has no parent."""
        self._phases[name] = _Phase(parent, max(1, num_steps))

    def step(self, name: str, step: int) -> int | None:
        """Ends a step, from 0, of a phase; returns the percentage if it has grown."""
        if (phase := self._phases.get(name)) is not None:
            phase.done = step + 1
        percent = int(TOTAL * self._share(None))
        if percent <= self._percent:
            return None
        self._percent = percent
        return percent

    def finish(self, name: str) -> None:
        """Ends a phase."""
        self._phases.pop(name, None)

    def _share(self, parent: str | None) -> float:
        """Returns how much is done of the phases below one, 0 … 1."""
        below = [(name, phase) for name, phase in self._phases.items() if phase.parent == parent]
        shares = (min(1.0, (p.done + self._share(name)) / p.num_steps) for name, p in below)
        return max(shares, default=0.0)


def new_monitor(trt: Any, on_percent: Callable[[int], None], is_stopped: Callable[[], bool]) -> Any:
    """Returns an `IProgressMonitor`.

    Args:
        trt: the module whose builder is watched.
        on_percent: called with each new percentage, on whichever thread builds.
        is_stopped: whether the build is to stop at this step.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Called by a build's threads, several at once."""

        def __init__(self) -> None:
            super().__init__()
            self._lock = threading.Lock()
            self._phases = Phases()

        def phase_start(self, name: str, parent: str | None, num_steps: int) -> None:
            with self._lock:
                self._phases.start(name, parent, num_steps)

        def step_complete(self, name: str, step: int) -> bool:
            with self._lock:
                percent = self._phases.step(name, step)
                if percent is not None:
                    on_percent(percent)
            return not is_stopped()

        def phase_finish(self, name: str) -> None:
            with self._lock:
                self._phases.finish(name)

    return Monitor()
