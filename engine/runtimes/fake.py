"""A runtime in NumPy with a made-up model: the contract without weights, for tests.

The sums over rows and tables are the contract's own; only the networks are replaced by cheap
functions of their inputs, each row's independent of the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from giffusion.engine.contract import LATENT_SCALE, GraphSpec
from giffusion.engine.runtimes.base import Array, HostGraph


class FakeRuntime:
    """Loads any graph of the contract without reading its file.

    Args:
        precision: kept, and otherwise without meaning.
    """

    name = "fake"
    version = "1"
    num_lanes = 1

    def __init__(self, precision: str | None = None) -> None:
        self.precision = precision or "fp32"
        self.num_runs = {"text": 0, "denoise": 0, "decode": 0, "encode": 0}

    def load(
        self,
        path: Path,
        spec: GraphSpec,
        axes: Mapping[str, int],
        feedback: Mapping[str, str] | None = None,
    ) -> _FakeGraph:
        """Loads a graph; see `Runtime.load`."""
        return _FakeGraph(self, spec, axes, feedback)


class _FakeGraph(HostGraph):
    def __init__(
        self,
        runtime: FakeRuntime,
        spec: GraphSpec,
        axes: Mapping[str, int],
        feedback: Mapping[str, str] | None,
    ) -> None:
        super().__init__(spec, axes, feedback)
        self._runtime = runtime
        self._stage = spec.name
        self._output = spec.outputs[0].name
        self._compute = _STAGES[spec.name]

    def _execute(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        self._runtime.num_runs[self._stage] += 1
        outputs[self._output][...] = self._compute(inputs, outputs[self._output].shape)


def _text(inputs: Mapping[str, Array], shape: tuple[int, ...]) -> Array:
    phases = inputs["input_ids"][:, :, None] + np.arange(shape[-1])
    return np.sin(phases)


def _denoise(inputs: Mapping[str, Array], shape: tuple[int, ...]) -> Array:
    state, row_slot = inputs["state"], inputs["row_slot"]
    scaled = state[:, 0] * inputs["scale"][:, None, None, None]
    time = inputs["time_proj"].mean(axis=1)[row_slot, None, None, None]
    cond = inputs["cond"].mean(axis=(1, 2))[:, None, None, None]
    row_output = np.tanh(scaled[row_slot] + time) * np.float32(0.5) + cond
    mix = inputs["mix"][:, :, None, None, None]
    output = np.where(mix != 0, mix * row_output[None], np.float32(0)).sum(axis=1)
    terms = np.concatenate([state, output[:, None], inputs["noise"][:, None]], axis=1)
    stepped: Array = (inputs["table"][:, :, :, None, None, None] * terms[:, None]).sum(axis=2)
    return stepped


def _decode(inputs: Mapping[str, Array], shape: tuple[int, ...]) -> Array:
    channels = inputs["latents"][:, :3].transpose(0, 2, 3, 1)
    small = np.clip(channels * 32 + 128, 0, 255).astype(np.uint8)
    large: Array = small.repeat(LATENT_SCALE, axis=1).repeat(LATENT_SCALE, axis=2)
    return large


def _encode(inputs: Mapping[str, Array], shape: tuple[int, ...]) -> Array:
    small = inputs["rgb"][:, ::LATENT_SCALE, ::LATENT_SCALE].astype(np.float32)
    channels = (small.transpose(0, 3, 1, 2) - 128) / 32
    return np.concatenate([channels, channels[:, :1]], axis=1)


_STAGES = {"text": _text, "denoise": _denoise, "decode": _decode, "encode": _encode}
