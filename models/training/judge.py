"""The judge: a small classifier that says what a picture shows, trained apart from the generator.

`models/evaluate.py` trains it and asks it about generated pictures. It sees pictures of two makers
(Fluent and, where prepared, Noto) at 64 pixels, moved, turned, recoloured, blurred and on any
background, so that it goes by shape. The invariant: it never sees a generated picture in training.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from giffusion.engine.errors import InputError
from giffusion.models.training.compose import compose
from giffusion.models.training.scenes import NOTHING, Scenes

SIDE = 64
"""Pixels of the sides of what the judge looks at."""


class Block(nn.Module):
    """A residual pair of convolutions, He et al. 2015, the first of a stride."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(outside)
        self.second = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(outside)
        self.past = nn.Conv2d(inside, outside, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.first_norm(self.first(x)))
        return F.relu(self.second_norm(self.second(hidden)) + self.past(x))


class Judge(nn.Module):
    """Pictures (b, 3, 64, 64) in [-1, 1] to logits (b, classes)."""

    def __init__(self, classes: int, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 5, 2, 2)
        self.blocks = nn.Sequential(
            Block(width, width * 2, 1),
            Block(width * 2, width * 4, 2),
            Block(width * 4, width * 6, 2),
            Block(width * 6, width * 8, 2),
        )
        self.head = nn.Linear(width * 8, classes)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.blocks(F.relu(self.stem(x)))
        logits: Tensor = self.head(hidden.mean((2, 3)))
        return logits


def exercises(pictures: int, count: int, device: torch.device) -> Scenes:
    """Scenes of one thing each, at random in all that does not change what it is."""

    def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return torch.rand(count, *shape, device=device) * (high - low) + low

    picture = torch.full((count, 2), NOTHING, device=device, dtype=torch.int16)
    picture[:, 0] = torch.randint(pictures, (count,), device=device).to(torch.int16)
    place = torch.cat(
        [uniform(2, low=-0.15, high=0.15), uniform(1, low=0.6, high=1.1), _turns(count, device)], 1
    )
    ground = torch.where(uniform(1, 1) < 0.5, torch.ones((), device=device), uniform(2, 3))
    ground = torch.where(uniform(1, 1) < 0.7, ground[:, :1], ground)
    return Scenes(
        picture=picture,
        place=place[:, None].expand(-1, 2, -1),
        flip=uniform(2) < 0.3,
        tinted=uniform(2) < 0.25,
        tint=uniform(2, 3),
        ground=ground.expand(-1, 2, -1),
        horizon=torch.cat([uniform(1, low=-0.5, high=0.6), uniform(1, low=0.1, high=2)], 1),
    )


def _turns(count: int, device: torch.device) -> Tensor:
    return torch.randn(count, 1, device=device) * 0.15


def spoil(pictures: Tensor) -> Tensor:
    """Blurs, bends the contrast of and adds noise to pictures, each to a degree of its own."""
    count = (len(pictures), 1, 1, 1)
    blurred = F.avg_pool2d(F.avg_pool2d(pictures, 3, 1, 1), 3, 1, 1)
    degree = torch.rand(count, device=pictures.device)
    pictures = torch.lerp(pictures, blurred, degree)
    gain = torch.rand(count, device=pictures.device) * 0.4 + 0.8
    noise = torch.randn_like(pictures) * torch.rand(count, device=pictures.device) * 0.1
    return (pictures * gain + noise).clamp(-1, 1)


@dataclass(frozen=True, slots=True)
class Lessons:
    """How a judge is trained: until `seconds` or `steps` are over, whichever comes first.

    Attributes:
        seconds: of wall-clock time.
        steps: of the optimiser.
        batch: pictures a step.
        rate: highest learning rate.
        width: channels of the judge's first layer, a measure of its size.
    """

    seconds: float = 40.0
    steps: int = 100_000
    batch: int = 512
    rate: float = 2e-3
    width: int = 32


def train_judge(pixels: Tensor, classes: int, device: torch.device, lessons: Lessons) -> Judge:
    """Trains a judge.

    Args:
        pixels: (n, 64, 64, 4) uint8 RGBA; picture i shows class i modulo `classes`.
        classes: number of things.
        device: where.
        lessons: how long.

    Returns:
        The judge, in evaluation mode.
    """
    torch.manual_seed(0)
    pixels, judge = pixels.to(device), Judge(classes, lessons.width).to(device)
    optimiser = torch.optim.AdamW(judge.parameters(), lessons.rate, weight_decay=0.02)
    begin, done, step = time.monotonic(), 0.0, 0
    while done < 1:
        for group in optimiser.param_groups:
            group["lr"] = lessons.rate * min(1, (step + 1) / 50) * (1 - done) + 1e-5
        loss = _step(judge, pixels, classes, optimiser, lessons.batch)
        step += 1
        done = max((time.monotonic() - begin) / lessons.seconds, step / lessons.steps)
        if step % 100 == 0:
            print(f"judge: step {step}, loss {loss.item():.3f}, {done:.0%}", flush=True)
    judge.eval()
    return judge


def _step(
    judge: Judge, pixels: Tensor, classes: int, optimiser: torch.optim.Optimizer, batch: int
) -> Tensor:
    scenes = exercises(len(pixels), batch, pixels.device)
    pictures = spoil(compose(pixels, scenes))
    target = scenes.picture[:, 0].long() % classes
    with torch.autocast(pixels.device.type, torch.bfloat16):
        logits = judge(pictures)
    loss = F.cross_entropy(logits.float(), target, label_smoothing=0.05)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return loss.detach()


@torch.no_grad()
def look(judge: Judge, pictures: Tensor) -> Tensor:
    """Logits (n, classes) of pictures (n, 3, s, s) in [-1, 1] of any size, on the CPU."""
    device = next(judge.parameters()).device
    parts = [
        judge(F.interpolate(part.to(device).float(), (SIDE, SIDE), mode="area"))
        for part in torch.split(pictures, 256)
    ]
    return torch.cat(parts).float().cpu()


def save_judge(judge: Judge, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(judge.state_dict(), path)


def load_judge(path: Path, classes: int) -> Judge:
    """Reads a judge of any width.

    Raises:
        InputError: the file is no judge, or one of other things.
    """
    try:
        state = load_file(path)
        judge = Judge(classes, len(state["stem.weight"]))
        judge.load_state_dict(state)
    except (OSError, KeyError, RuntimeError, SafetensorError):
        raise InputError(
            f"{path}: not a judge of {classes} things: remove the file, it is trained anew"
        ) from None
    judge.eval()
    return judge
