"""A training's state on disk, so that it can go on where it was interrupted.

`train.py` saves between and during the stages. The invariant: a file is whole or it is not there,
and it is safetensors: reading one runs no code of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from giffusion.engine.errors import InputError
from giffusion.models.training.diffusion import DiffusionState

_MOMENTS = ("exp_avg", "exp_avg_sq", "momentum")
"""What AdamW and Muon keep of a parameter's size; each parameter has those of one of them."""


def save_tensors(path: Path, tensors: dict[str, Tensor], notes: dict[str, str]) -> None:
    """Writes tensors and notes in one piece."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    save_file({name: value.detach().contiguous() for name, value in tensors.items()}, part, notes)
    part.replace(path)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads what `save_tensors` wrote.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with safe_open(path, "pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path}: not a checkpoint of this training ({error}): delete it, or train without "
            "--resume"
        ) from None


def save_network(path: Path, model: nn.Module) -> None:
    """Writes a network's weights as they are."""
    save_tensors(path, model.state_dict(), {})


def load_network(path: Path, model: nn.Module) -> None:
    """Reads a network's weights.

    Raises:
        InputError: the file cannot be read, or is another network's.
    """
    tensors, _ = load_tensors(path)
    _check(path, tensors, model.state_dict())
    model.load_state_dict(tensors)


def save_diffusion(path: Path, state: DiffusionState, elapsed: float) -> None:
    """Writes weights, their average and the optimizer's moments.

    Args:
        path: the file.
        state: of the training.
        elapsed: seconds it took so far.
    """
    tensors = {f"average.{name}": value for name, value in state.average.values.items()}
    for name, parameter in state.model.named_parameters():
        tensors[f"model.{name}"] = parameter
        for moment, value in state.optimizer.state[parameter].items():
            tensors[f"{moment}.{name}"] = value
    save_tensors(path, tensors, {"step": str(state.step), "elapsed": f"{elapsed:.1f}"})


@torch.no_grad()
def load_diffusion(path: Path, state: DiffusionState) -> float:
    """Reads what `save_diffusion` wrote into a new state.

    Returns:
        Seconds that the training took until then.

    Raises:
        InputError: the file cannot be read, or is another model's.
    """
    tensors, notes = load_tensors(path)
    parameters = dict(state.model.named_parameters())
    _check(
        path,
        {name: tensors.get(f"model.{name}", torch.empty(0)) for name in parameters},
        parameters,
    )
    for name, parameter in parameters.items():
        parameter.copy_(tensors[f"model.{name}"])
        state.average.values[name].copy_(tensors[f"average.{name}"])
        # The fused optimizer wants its moments laid out in memory as their parameter is.
        moments = {
            moment: torch.empty_like(parameter).copy_(tensors[f"{moment}.{name}"])
            for moment in _MOMENTS
            if f"{moment}.{name}" in tensors
        }
        if f"step.{name}" in tensors:
            moments["step"] = tensors[f"step.{name}"].to(parameter.device)
        state.optimizer.state[parameter] = moments
    state.step = int(notes["step"])
    return float(notes["elapsed"])


def misfit_of(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """What keeps tensors from being a network's, or nothing: the first of another shape."""
    for name in sorted(found.keys() | wanted.keys()):
        got = tuple(found[name].shape) if name in found else None
        expected = tuple(wanted[name].shape) if name in wanted else None
        if got != expected:
            return f"{name} has the shape {got}, expected {expected}"
    return ""


def _check(path: Path, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    if misfit := misfit_of(found, wanted):
        raise InputError(
            f"{path}: {misfit}: it is a model of other --size; delete it, or train without --resume"
        )
