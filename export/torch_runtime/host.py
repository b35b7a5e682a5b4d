"""A fused module behind the `Graph` protocol on the CPU, and what a module has to be.

`runtime.py` makes them. Buffers are NumPy arrays, which torch reads in place; what
a module returns is copied into its output's array, so that nothing depends on torch's allocator.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from giffusion.engine.contract import GraphSpec
from giffusion.engine.errors import ModelError
from giffusion.engine.runtimes.base import Array, HostGraph


class HostTorchGraph(HostGraph):
    """Runs a module on host arrays.

    Args:
        module: takes the contract's inputs by their names and returns its outputs.
        spec: the contract.
        axes: the size of every named axis.
        feedback: outputs that become inputs of the next run, by name.
    """

    def __init__(
        self,
        module: nn.Module,
        spec: GraphSpec,
        axes: Mapping[str, int],
        feedback: Mapping[str, str] | None,
    ) -> None:
        super().__init__(spec, axes, feedback)
        self._module = module

    def close(self) -> None:
        super().close()
        # Whoever holds the closed graph holds no weights.
        del self._module

    def _execute(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        with torch.inference_mode():
            tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
            results = as_tuple(self._module(**tensors))
            for array, result in zip(outputs.values(), results, strict=True):
                np.copyto(array, result.numpy(), casting="no")


def as_tuple(results: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Returns a module's results as a tuple, also where it has only one."""
    return results if isinstance(results, tuple) else (results,)


def check_stage(folder: Path, module: nn.Module, spec: GraphSpec) -> None:
    """Compares the widths of a loaded stage with the contract's, which the manifest gives.

    Raises:
        ModelError: the folder's network is not the one that was exported.
    """
    expected = {tensor.name: tensor.shape[-1] for tensor in (*spec.inputs, *spec.outputs)}
    for name, found in _widths(module, spec.name).items():
        if found != expected[name]:
            raise ModelError(
                f"{folder} has a {spec.name} network with {name} of width {found}: expected "
                f"{expected[name]}, as its manifest says; export the model again"
            )


def _widths(module: Any, stage: str) -> dict[str, int]:
    if stage == "text":
        encoders = (module.text_encoder, module.text_encoder_2)
        widths = [encoder.config.hidden_size for encoder in encoders if encoder is not None]
        return {"prompt_embeds": sum(widths)}
    if stage == "denoise":
        config = module.unet.config
        return {"time_proj": config.block_out_channels[0], "cond": config.cross_attention_dim}
    return {}
