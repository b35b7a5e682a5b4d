"""The machine that trains: its device, its number formats, its compiler, and the log.

Every stage is handed one. The invariant: the same code trains on a GPU and, slowly, on a CPU; only
what is here knows the difference.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from giffusion.engine.errors import SettingsError
from giffusion.models.training.muon import BETAS, Muon, decay_groups
from giffusion.models.training.schedule import Budget, StepOptions

_EVERY_S = 5.0
"""Seconds between two lines of the log."""

_SYNC_STEPS = 20
"""Steps between two looks at the GPU; each waits for it."""


@dataclass(slots=True)
class Machine:
    """A device and how it is used.

    Attributes:
        device: where tensors are.
        compile: whether networks are compiled; it pays on a GPU after half a minute.
        log_file: where the log goes as well as to standard output, or None.
    """

    device: torch.device
    compile: bool = False
    log_file: Path | None = None
    _born: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")

    @property
    def is_gpu(self) -> bool:
        return self.device.type == "cuda"

    def autocast(self) -> AbstractContextManager[Any]:
        """Convolutions and products in bfloat16."""
        return torch.autocast(self.device.type, torch.bfloat16)

    def arrange(self, unet: nn.Module) -> None:
        """Lays out a U-Net, which is on the device, as that computes it fastest.

        On CPUs that is planes one after another, and attention by plain products: its scores are
        small here, and the fused kernel's backward pass takes twice as long.
        """
        if self.is_gpu:
            unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            return
        from diffusers.models.attention_processor import AttnProcessor

        cast(Any, unet).set_attn_processor(AttnProcessor())

    def compiled(self, module: nn.Module) -> Callable[..., Any]:
        """The same function, compiled if the machine compiles; one shape each."""
        if not self.compile:
            return module
        compiled: Callable[..., Any] = torch.compile(module, dynamic=False)
        return compiled

    def optimizer(self, model: nn.Module, options: StepOptions) -> torch.optim.Optimizer:
        """AdamW, or Muon for matrices; weight decay on matrices and kernels only."""
        fused = self.is_gpu
        rate, decay = options.rate, options.weight_decay
        if options.matrix_rate:
            return Muon(model, rate, matrix_rate=options.matrix_rate, decay=decay, fused=fused)
        groups = decay_groups(list(model.parameters()), decay)
        return torch.optim.AdamW(groups, lr=rate, betas=BETAS, fused=fused)

    @staticmethod
    def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = rate

    @staticmethod
    def update(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
        """One step of the optimizer, with the gradient's length limited to 1."""
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def log(self, line: str) -> None:
        """Says a line, with the seconds since the machine was made."""
        line = f"{time.monotonic() - self._born:7.1f} s  {line}"
        print(line, flush=True)
        if self.log_file is not None:
            with self.log_file.open("a", encoding="utf-8") as stream:
                stream.write(line + "\n")

    def report(self, stage: str, budget: Budget, batch: int) -> Report:
        """Returns what logs a stage's progress."""
        return Report(self, stage, budget, batch)


@dataclass(slots=True)
class Report:
    """Lines about one stage: mean loss, pictures a second, seconds left."""

    machine: Machine
    stage: str
    budget: Budget
    batch: int
    _losses: list[Tensor] = field(default_factory=list)
    _last: float = field(default_factory=time.monotonic)
    _steps: int = 0

    def step(self, step: int, loss: Tensor) -> None:
        """Notes a step's loss, and says a line when one is due.

        Raises:
            SettingsError: the training has diverged.
        """
        self._losses.append(loss.detach())
        self._steps += 1
        if step % _SYNC_STEPS:
            return
        # Waits until the GPU is here, which keeps the clock honest too.
        mean = float(torch.stack(self._losses).mean())
        if not math.isfinite(mean):
            raise SettingsError(
                f"{self.stage}: the loss is {mean} at step {step}: lower its learning rate"
            )
        now = time.monotonic()
        if now - self._last < _EVERY_S:
            return
        speed = self._steps * self.batch / (now - self._last)
        self.machine.log(
            f"{self.stage}: step {step}, loss {mean:.4f}, {speed:.0f} pictures/s, "
            f"{self.budget.left:.0f} s left"
        )
        self._losses, self._last, self._steps = [], now, 0
