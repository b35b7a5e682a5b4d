"""A trained model that learns more phrasings: `train.py --listen`.

The invariant: the given folders are not touched, and all that does not learn is taken as it is.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from giffusion.engine.errors import InputError
from giffusion.models.training.checkpoints import misfit_of
from giffusion.models.training.latents import Gallery, encode_scenes
from giffusion.models.training.listening import ListeningOptions, rephrased, teach
from giffusion.models.training.machine import Machine
from giffusion.models.training.networks import Denoiser
from giffusion.models.training.prepared import Prepared, load_prepared
from giffusion.models.training.pretrained import load_autoencoder, load_denoiser, load_unet
from giffusion.models.training.publish import publish_part, replaced
from giffusion.models.training.schedule import Budget

_VOCABULARY = Path("tokenizer") / "tokenizer.json"


@dataclass(frozen=True, slots=True)
class ListeningPlan:
    """What learns, and where the files are.

    Attributes:
        model: a folder that `train.py` wrote.
        data: folder of the corpus that it was trained on.
        out: where the result is written: `model`, and `turbo` where one is given.
        scenes: of how many there are pictures at most.
        turbo: folder of the U-Net of the model's four-step variant, or None.
    """

    model: Path
    data: Path
    out: Path
    scenes: int
    turbo: Path | None = None


def listen(
    plan: ListeningPlan, machine: Machine, budget: Budget, options: ListeningOptions
) -> None:
    """Teaches a pipeline.

    The four-step variant, which is the model's U-Net and a difference, takes what that learned as
    another difference.

    Args:
        plan: what.
        machine: where it runs.
        budget: how long.
        options: how.

    Raises:
        InputError: there is no corpus, the model is none of it, or the variant none of the model;
            one of them is where the result would be; or the variant would learn nothing.
    """
    target, turbo = plan.out / "model", plan.out / "turbo"
    for given in (plan.model, plan.turbo):
        if given is not None and given.resolve() in (target.resolve(), turbo.resolve()):
            raise InputError(f"{given}: the result would replace it: name another --out")
    if plan.turbo is not None and not options.pictures:
        raise InputError(f"{plan.turbo}: U-Nets learn with --listen-pictures above 0 only")
    prepared = load_prepared(plan.data)
    ours, theirs = prepared.tokenizer / _VOCABULARY.name, plan.model / _VOCABULARY
    if not theirs.is_file() or _read(ours) != _read(theirs):
        raise InputError(
            f"{plan.model}: its tokenizer is not that of {plan.data}: name a model and the corpus "
            "that it was trained on"
        )
    model = load_denoiser(plan.model).to(machine.device)
    machine.arrange(model.unet)
    variant = _variant(plan.turbo, model.unet) if plan.turbo else None
    latents = _latents(plan, prepared, model, machine) if options.pictures else None
    lessons = rephrased(prepared, latents, options)
    before = teach(model, lessons, latents, machine, budget, options)
    with replaced(target) as part:
        # Graphs and their manifest are those of the model before.
        learned = ("text_encoder", "unet") if options.pictures else ("text_encoder",)
        others = shutil.ignore_patterns("*.onnx", "giffusion.json", *learned)
        shutil.copytree(plan.model, part, ignore=others)
        for name in learned:
            publish_part(part / name, getattr(model, name))
    if variant is not None:
        follow(variant.to(machine.device), before.unet, model.unet)
        with replaced(turbo) as part:
            publish_part(part, variant)
    machine.log("done")


def _read(vocabulary: Path) -> object:
    """What a tokenizer's file holds, which one that writes JSON otherwise holds as well."""
    try:
        return json.loads(vocabulary.read_text(encoding="utf-8"))
    except ValueError:
        return None


def _latents(plan: ListeningPlan, prepared: Prepared, model: Denoiser, machine: Machine) -> Tensor:
    gallery = Gallery.of(prepared, plan.scenes, machine.device)
    coder = load_autoencoder(plan.model / "vae").to(machine.device)
    return encode_scenes(coder, gallery.pixels(8 * model.latent_side), gallery.scenes, machine)


def _variant(folder: Path, unet: nn.Module) -> nn.Module:
    variant = load_unet(folder)
    misfit = misfit_of(variant.state_dict(), unet.state_dict())
    if misfit:
        raise InputError(
            f"{folder}: its networks are not the model's: {misfit}: name the turbo of the model"
        )
    return variant


@torch.no_grad()
def follow(variant: nn.Module, before: nn.Module, after: nn.Module) -> None:
    """Adds to a network what another one of its kind has learned.

    Args:
        variant: is changed in place.
        before: the other one before it learned.
        after: the same since.
    """
    rows = (one.parameters() for one in (variant, before, after))
    for parameter, old, new in zip(*rows, strict=True):
        parameter.add_(new - old)
