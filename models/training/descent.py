"""The loop that every stage of a training runs: losses, steps down their gradients, a report.

The invariant: a loop ends with its budget, and its learning rate is that of `schedule`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from giffusion.models.training.averages import MovingAverage
from giffusion.models.training.machine import Machine
from giffusion.models.training.schedule import Budget, StepOptions, learning_rate


def descend(
    stage: str,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    new_loss: Callable[[], Tensor],
    machine: Machine,
    budget: Budget,
    options: StepOptions,
    *,
    average: MovingAverage | None = None,
    step: int = 0,
    until: float = 1.0,
    stepped: Callable[[int], None] | None = None,
) -> None:
    """Trains a network in place.

    Args:
        stage: what the report calls it.
        network: whose gradients are limited, and averaged weights kept.
        optimizer: of its parameters.
        new_loss: the loss of a new batch, a scalar.
        machine: where it runs, and who is told of it.
        budget: how long.
        options: how large the steps are.
        average: of the network, if it has one.
        step: how many steps were made before.
        until: progress of the budget at which it ends.
        stepped: told of the number of steps after each.
    """
    report = machine.report(stage, budget, options.batch)
    while (progress := budget.progress(step)) < until:
        rate = learning_rate(options.rate, step, progress, options.warmup)
        machine.set_rate(optimizer, rate)
        loss = new_loss()
        loss.backward()  # type: ignore[no-untyped-call]
        machine.update(optimizer, network)
        if average is not None:
            average.update(step)
        step += 1
        report.step(step, loss)
        if stepped is not None:
            stepped(step)
