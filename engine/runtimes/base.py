"""What a runtime is: something that runs a fused graph on named buffers.

The loop in `pipeline.py` speaks only to these two protocols. Shapes are fixed when a graph is
loaded, buffers stay where they are between runs, and only what is written is uploaded, so the
same calls drive host memory and one captured CUDA graph.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.contract import GraphSpec
from giffusion.engine.errors import ModelError, RenderError, one_line
from giffusion.engine.frames import Frame
from giffusion.engine.model import Model

Index = int | tuple[int, ...]
Array = NDArray[Any]
OnPrepare = Callable[[str, int, int], None]
"""Told what is made, and the steps of it that are done and their number."""


class Fetch(Protocol):
    """An entry of a buffer on its way out, after everything that was queued before it."""

    @property
    def done(self) -> bool:
        """Whether `result` would not wait."""

    def result(self) -> Frame:
        """Waits for the entry and returns it; called once."""


class Graph(Protocol):
    """A loaded graph with its input and output buffers, zero at first.

    On a device `write`, `run`, `copy` and `fetch` queue their work and return; what they do takes
    effect in the order of the calls.
    """

    def write(self, name: str, value: Array, index: Index | None = None) -> None:
        """Sets an input, or one entry along its leading axes; used by the next `run`."""

    def run(self) -> None:
        """Runs the graph once, then feeds back the outputs that it was loaded to feed back."""

    def read(self, name: str, index: Index | None = None) -> Array:
        """Returns a copy of a buffer, or of one entry along its leading axes."""

    def fetch(self, name: str, index: Index, *, on_device: bool = False) -> Fetch:
        """Starts to copy one entry of an output out: to the host, or elsewhere on the device."""

    def copy(
        self, name: str, index: Index, source: Graph, source_name: str, source_index: Index
    ) -> None:
        """Sets one entry of an input from another graph's buffer, on the device if it is there."""

    def resize(self, axes: Mapping[str, int]) -> None:
        """Changes to other sizes of its axes, to some that `Runtime.smaller` named.

        Buffers stay where they are, so those whose leading axis alone changes keep the values of
        their first entries; the others are to be written anew.
        """

    def close(self) -> None:
        """Frees its buffers; nothing else of it is called any more."""


class Runtime(Protocol):
    """Loads graphs and runs them at one precision."""

    name: str
    version: str
    precision: str
    num_lanes: int
    """Graphs that it runs side by side, each on its part of the machine."""
    decode_batch: int
    """Pictures that it decodes in one run, and encodes where they come from a film."""
    graph_dtype: str
    """Which of a model's files it loads, by the type that they compute in."""
    on_device: bool
    """Whether frames can stay in device memory, for an encoder that reads them there."""

    @property
    def numerics(self) -> dict[str, Any]:
        """What its results depend on besides graphs and shapes, once the graphs are loaded."""

    def smaller(self, batch: int) -> tuple[int, ...]:
        """Returns the batches below one that denoise graphs can be resized to, ascending."""

    def prepare(
        self, model: Model, *, size: tuple[int, int], batch: int, on_progress: OnPrepare
    ) -> None:
        """Makes what `load` needs of a model and is not there yet, such as engines.

        Args:
            model: whose graphs will be loaded.
            size: (width, height) in pixels that they will be loaded for.
            batch: rows of the denoise graph.
            on_progress: told of what is made; not called where nothing is missing.

        Raises:
            RuntimeUnavailableError: it cannot be made here.
            ModelError: the model's graphs cannot be built.
        """

    def load(
        self,
        path: Path,
        spec: GraphSpec,
        axes: Mapping[str, int],
        feedback: Mapping[str, str] | None = None,
    ) -> Graph:
        """Loads a graph for fixed shapes.

        Args:
            path: the ONNX file.
            spec: its contract.
            axes: the size of every named axis.
            feedback: outputs that become inputs of the next run, by name.

        Raises:
            ModelError: the file is not the graph that the contract describes.
        """


@dataclass(frozen=True, slots=True)
class Fetched:
    """A `Fetch` that has arrived."""

    frame: Frame
    done: bool = True

    def result(self) -> Frame:
        return self.frame


class HostRuntime:
    """What runtimes on the CPU have in common; see `Runtime`."""

    name: str
    version: str
    precision: str
    num_lanes = 1
    # Larger batches of pictures fall out of a CPU's caches.
    decode_batch = 1
    graph_dtype = "fp32"
    on_device = False

    @property
    def numerics(self) -> dict[str, Any]:
        return {
            "runtime": self.name,
            "runtime_version": self.version,
            "precision": self.precision,
        }

    def smaller(self, batch: int) -> tuple[int, ...]:
        return ()

    def prepare(
        self, model: Model, *, size: tuple[int, int], batch: int, on_progress: OnPrepare
    ) -> None:
        """Does nothing: graphs are compiled as they are loaded, in moments."""


class HostGraph(ABC):
    """A graph whose buffers are NumPy arrays: what runtimes on the CPU have in common."""

    def __init__(
        self, spec: GraphSpec, axes: Mapping[str, int], feedback: Mapping[str, str] | None
    ) -> None:
        self._feedback = dict(feedback or {})
        self._inputs = {t.name: np.zeros(t.resolve(axes), t.dtype) for t in spec.inputs}
        self._outputs = {t.name: np.zeros(t.resolve(axes), t.dtype) for t in spec.outputs}

    def write(self, name: str, value: Array, index: Index | None = None) -> None:
        self._inputs[name][... if index is None else index] = value

    def run(self) -> None:
        try:
            self._execute(self._inputs, self._outputs)
        except RuntimeError as error:
            raise RenderError(f"the runtime failed: {one_line(error)}") from error
        for output, target in self._feedback.items():
            self._inputs[target], self._outputs[output] = (
                self._outputs[output],
                self._inputs[target],
            )

    def read(self, name: str, index: Index | None = None) -> Array:
        # After a run that fed it back, an output's values are in the input they became.
        buffers = self._inputs if name in self._inputs else self._outputs
        return np.array(buffers[name][... if index is None else index])

    def fetch(self, name: str, index: Index, *, on_device: bool = False) -> Fetch:
        # The device is the host: a copy there is an array, which speaks DLPack too.
        return Fetched(self.read(name, index))

    def copy(
        self, name: str, index: Index, source: Graph, source_name: str, source_index: Index
    ) -> None:
        self._inputs[name][index] = source.read(source_name, source_index)

    def resize(self, axes: Mapping[str, int]) -> None:
        raise ValueError(f"graphs on the host keep their shapes: got {dict(axes)}")

    def close(self) -> None:
        self._inputs, self._outputs = {}, {}

    @abstractmethod
    def _execute(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Runs the graph, writing into the output arrays; arrays may have changed places."""


def check_tensors(
    path: Path,
    spec: GraphSpec,
    axes: Mapping[str, int],
    found: Mapping[str, Sequence[int | str | None]],
) -> None:
    """Compares the tensors of a loaded graph with the contract; axes that are no number fit.

    Raises:
        ModelError: a name or a size differs.
    """
    expected = {t.name: t.resolve(axes) for t in (*spec.inputs, *spec.outputs)}
    # Decode and encode have the same names; their order tells inputs from outputs.
    if list(found) != list(expected):
        raise ModelError(
            f"{path} has the tensors {', '.join(found)}: expected {', '.join(expected)} of the "
            f"{spec.name} graph; export the model again"
        )
    for name, shape in expected.items():
        got = tuple(found[name])
        fits = (f == s or not isinstance(f, int) for f, s in zip(got, shape, strict=False))
        if len(got) != len(shape) or not all(fits):
            raise ModelError(
                f"{path} has {name!r} of shape {got}: expected {shape}; export the model again"
            )


def num_cores() -> int:
    """Returns the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
