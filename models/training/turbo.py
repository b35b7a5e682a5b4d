"""A variant of the U-Net that needs four steps and no guidance.

`train.py` runs it last, if it is asked to. The teacher walks many captions to pictures, with
guidance; the student learns each quarter of those walks as one step of DDIM. The invariant: the
teacher is not touched, and everything but the U-Net is shared with it.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from giffusion.models.training.averages import MovingAverage
from giffusion.models.training.descent import descend
from giffusion.models.training.diffusion import Corpus
from giffusion.models.training.machine import Machine
from giffusion.models.training.networks import Denoiser
from giffusion.models.training.schedule import Budget, StepOptions, alphas_cumprod

STEPS = 4
"""Steps of the student; DDIM with trailing spacing evaluates it at timesteps 999, 749, 499, 249."""


@dataclass(frozen=True, slots=True)
class TurboOptions(StepOptions):
    """How the variant is trained; a batch is of quarters of walks.

    Attributes:
        walks: walks of the teacher.
        teacher_steps: steps of each, a multiple of four, of DDIM: its latents at the student's
            timesteps are states that the student meets.
        guidance: classifier-free guidance scale of the teacher.
        decay: of the moving average.
    """

    batch: int = 384
    rate: float = 4e-4
    warmup: int = 50
    walks: int = 16_384
    teacher_steps: int = 16
    guidance: float = 5.0
    decay: float = 0.995


def levels(steps: int) -> Tensor:
    """Timesteps of a walk by DDIM with trailing spacing and where it ends, (steps + 1,) int64.

    The end stands for timestep 0, as `set_alpha_to_one` is off.
    """
    count = len(alphas_cumprod())
    timesteps = (count - torch.arange(steps) * (count / steps)).round().long() - 1
    return torch.cat([timesteps, torch.tensor([0])])


def angles(timesteps: Tensor, alphas: Tensor) -> Tensor:
    """Noise levels as angles: signal √ᾱ is their cosine, noise their sine."""
    return torch.acos(alphas[timesteps].sqrt())


def jump(latents: Tensor, velocity: Tensor, turn: Tensor | float) -> Tensor:
    """A DDIM step: latents turn by an angle about the origin, away from the velocity.

    Args:
        latents: (b, 4, h, w) at one noise level.
        velocity: their v-prediction.
        turn: angle of that level less the one wanted, scalar or (b, 1, 1, 1).
    """
    turn = torch.as_tensor(turn, device=latents.device)
    return torch.cos(turn) * latents - torch.sin(turn) * velocity


@torch.no_grad()
def walk(
    model: Denoiser, corpus: Corpus, count: int, machine: Machine, options: TurboOptions
) -> tuple[Tensor, Tensor]:
    """The teacher walks from noise to pictures.

    Returns:
        Latents at the student's timesteps and the end, (count, 5, 4, h, w) float16, and the
        captions' token ids (count, 24).
    """
    alphas = alphas_cumprod().to(machine.device)
    timesteps = levels(options.teacher_steps).to(machine.device)
    turns = angles(timesteps, alphas).diff().neg()
    example, ids = corpus.draw(count, 0.0)
    latents = torch.randn_like(example)
    empty = model.embed(corpus.empty_ids[None].long()).expand(count, -1, -1)
    states = torch.cat([empty, model.embed(ids)])
    kept = [latents.half()]
    for number in range(options.teacher_steps):
        with machine.autocast():
            time = timesteps[number].expand(2 * count)
            velocity = model(torch.cat([latents, latents]), time, states).float()
        without, along = velocity.chunk(2)
        velocity = without + options.guidance * (along - without)
        latents = jump(latents, velocity, turns[number])
        if (number + 1) % (options.teacher_steps // STEPS) == 0:
            kept.append(latents.half())
    return torch.stack(kept, 1), ids


def train_turbo(
    teacher: Denoiser, corpus: Corpus, machine: Machine, budget: Budget, options: TurboOptions
) -> nn.Module:
    """Distils the teacher.

    Args:
        teacher: text encoder and U-Net, with the averaged weights.
        corpus: where captions come from.
        machine: where it runs.
        budget: how long, the teacher's walks included.
        options: how.

    Returns:
        The student's U-Net.
    """
    walks, ids = _walks(teacher, corpus, machine, options)
    machine.log(f"turbo: {len(walks)} walks")
    student = deepcopy(teacher.unet)
    unet = machine.compiled(student)
    average = MovingAverage(student, options.decay)
    optimizer = machine.optimizer(student, options)
    alphas = alphas_cumprod().to(machine.device)
    timesteps = levels(STEPS).to(machine.device)
    turns = angles(timesteps, alphas).diff().neg()[:, None, None, None]

    def new_loss() -> Tensor:
        rows = torch.randint(len(walks), (options.batch,), device=machine.device)
        quarter = torch.randint(STEPS, (options.batch,), device=machine.device)
        begin, end = walks[rows, quarter].float(), walks[rows, quarter + 1].float()
        # The velocity by which one step of DDIM leads from the one to the other.
        turn = turns[quarter]
        velocity = (torch.cos(turn) * begin - end) / torch.sin(turn)
        begin = begin.contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), machine.autocast():
            states = teacher.embed(ids[rows])
        # The teacher's step was compiled for embeddings that learn; so that it need not be again.
        states.requires_grad_()
        with machine.autocast():
            predicted = unet(begin, timesteps[quarter], states, return_dict=False)[0]
        return F.mse_loss(predicted.float(), velocity)

    descend("turbo", student, optimizer, new_loss, machine, budget, options, average=average)
    average.copy_to(student)
    return student


def _walks(
    teacher: Denoiser, corpus: Corpus, machine: Machine, options: TurboOptions
) -> tuple[Tensor, Tensor]:
    size = min(options.walks, 512)
    parts = [
        walk(teacher, corpus, size, machine, options) for _ in range(max(1, options.walks // size))
    ]
    return torch.cat([latents for latents, _ in parts]), torch.cat([ids for _, ids in parts])
