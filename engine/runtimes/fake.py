"""A runtime in NumPy with a made-up model: the contract without weights, for tests.

The sums over rows and tables are the contract's own; only the networks are replaced by cheap
functions of their inputs, each row's independent of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from giffusion.engine.contract import LATENT_SCALE, GraphSpec
from giffusion.engine.runtimes.base import Array, HostGraph, HostRuntime

_Arrays = Mapping[str, Array]


class FakeRuntime(HostRuntime):
    """Loads any graph of the contract without reading its file.

    Args:
        precision: kept, and otherwise without meaning.
    """

    name = "fake"
    version = "1"

    def __init__(self, precision: str | None = None) -> None:
        self.precision = precision or "fp32"
        self.num_runs = dict.fromkeys(_STAGES, 0)

    def load(
        self,
        path: Path,
        spec: GraphSpec,
        axes: Mapping[str, int],
        feedback: Mapping[str, str] | None = None,
    ) -> HostGraph:
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

    def _execute(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        self._runtime.num_runs[self._stage] += 1
        compute(self._stage, inputs, outputs)


def compute(stage: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
    """Runs a stage of the made-up model, from its inputs into its outputs, by name."""
    results = _STAGES[stage](inputs, outputs)
    for output, result in zip(outputs.values(), results, strict=True):
        output[...] = result


def _text(inputs: _Arrays, outputs: _Arrays) -> tuple[Array, ...]:
    width = outputs["prompt_embeds"].shape[-1]
    return (np.sin(inputs["input_ids"][:, :, None] + np.arange(width)),)


def _denoise(inputs: _Arrays, outputs: _Arrays) -> tuple[Array, ...]:
    state, row_slot = inputs["state"], inputs["row_slot"]
    scaled = state[:, 0] * inputs["scale"][:, None, None, None]
    time = inputs["time_proj"].mean(axis=1)[row_slot, None, None, None]
    cond = inputs["cond"].mean(axis=(1, 2))[:, None, None, None]
    row_output = np.tanh(scaled[row_slot] + time) * np.float32(0.5) + cond
    if "control" in inputs:
        steered = inputs["control"].mean(axis=1) * inputs["control_scale"][:, None, None]
        row_output += steered[row_slot, None]
    mix = inputs["mix"][:, :, None, None, None]
    output = np.where(mix != 0, mix * row_output[None], np.float32(0)).sum(axis=1)
    terms = np.concatenate([state, output[:, None], inputs["noise"][:, None]], axis=1)
    return ((inputs["table"][:, :, :, None, None, None] * terms[:, None]).sum(axis=2),)


def _decode(inputs: _Arrays, outputs: _Arrays) -> tuple[Array, ...]:
    channels = inputs["latents"][:, :3].transpose(0, 2, 3, 1)
    small = np.clip(channels * 32 + 128, 0, 255).astype(np.uint8)
    rgb = small.repeat(LATENT_SCALE, axis=1).repeat(LATENT_SCALE, axis=2)
    return rgb, _nv12(rgb.astype(np.int32))


def _nv12(rgb: Array) -> Array:
    """Luma and chroma of blocks of one colour, near enough to BT.709 to tell colours apart."""
    red, green, blue = (rgb[..., channel] for channel in range(3))
    luma = 16 + (47 * red + 157 * green + 16 * blue) // 256
    pairs = [128 + (blue - green) // 3, 128 + (red - green) // 3]
    chroma = np.stack([pair[:, ::2, ::2] for pair in pairs], axis=-1)
    return np.concatenate([luma, chroma.reshape(*luma.shape[:1], -1, luma.shape[2])], axis=1)


def _encode(inputs: _Arrays, outputs: _Arrays) -> tuple[Array, ...]:
    small = inputs["rgb"][:, ::LATENT_SCALE, ::LATENT_SCALE].astype(np.float32)
    channels = (small.transpose(0, 3, 1, 2) - 128) / 32
    return (np.concatenate([channels, channels[:, :1]], axis=1),)


def _control(inputs: _Arrays, outputs: _Arrays) -> tuple[Array, ...]:
    small = inputs["rgb"][:, ::LATENT_SCALE, ::LATENT_SCALE].astype(np.float32)
    grey = small.mean(axis=3)[:, None] / 255
    return (np.broadcast_to(grey, outputs["control"].shape),)


_STAGES: dict[str, Callable[[_Arrays, _Arrays], tuple[Array, ...]]] = {
    "text": _text,
    "denoise": _denoise,
    "decode": _decode,
    "encode": _encode,
    "control": _control,
}
