"""The optimizer against PyTorch's own Muon and AdamW."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from giffusion.models.training.muon import Muon, orthogonalized

RATE, DECAY = 1e-2, 0.1


class Small(nn.Module):
    """A matrix wider than high, one higher than wide, a kernel, and what is neither."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 6)
        self.wide = nn.Linear(6, 4)
        self.tall = nn.Linear(4, 9, bias=False)
        self.kernel = nn.Conv2d(1, 3, 3)

    def forward(self, ids: Tensor) -> Tensor:
        hidden: Tensor = self.tall(self.wide(self.embedding(ids)))
        kernels: Tensor = self.kernel(hidden.view(-1, 1, 3, 3))
        return kernels.flatten(1)


def _gradients(model: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def _small() -> Small:
    torch.manual_seed(0)
    return Small()


def test_steps_are_those_of_pytorchs_muon_and_adamw() -> None:
    ours, theirs = _small(), _small()
    optimizer = Muon(ours, RATE, matrix_rate=2.0, decay=DECAY, fused=False)
    # PyTorch's takes matrices only: the kernel is handed over as one, which shares its numbers.
    flat = nn.Parameter(theirs.kernel.weight.detach().flatten(1))
    muon = torch.optim.Muon(
        [theirs.wide.weight, theirs.tall.weight, flat],
        lr=2 * RATE,
        weight_decay=DECAY,
        adjust_lr_fn="match_rms_adamw",
    )
    groups = [
        {"params": [theirs.embedding.weight], "weight_decay": DECAY},
        {"params": [theirs.wide.bias, theirs.kernel.bias], "weight_decay": 0.0},
    ]
    adam = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.99))
    optimizers: list[torch.optim.Optimizer] = [optimizer, muon, adam]
    for step in range(3):
        for model in (ours, theirs):
            _gradients(model, step)
        assert theirs.kernel.weight.grad is not None
        flat.grad = theirs.kernel.weight.grad.flatten(1)
        for one in optimizers:
            one.step()
    for (name, found), expected in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        # Iterations in bfloat16 round by the order of their sums.
        assert (found - expected).abs().max() < 2e-3, name


@pytest.mark.parametrize("shape", [(3, 8, 20), (2, 20, 8), (1, 6, 12)])
def test_singular_values_are_drawn_to_one(shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    matrices = torch.randn(shape)
    values = torch.linalg.svdvals(orthogonalized(matrices))
    assert values.min() > 0.3
    assert values.max() < 1.4
    turned = orthogonalized(matrices.mT)
    torch.testing.assert_close(turned.mT, orthogonalized(matrices))


def test_what_has_no_gradient_stays() -> None:
    model = _small()
    optimizer = Muon(model, RATE, matrix_rate=2.0, decay=DECAY, fused=False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.wide(torch.ones(1, 6)).sum().backward()
    optimizer.step()
    moved = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert moved == {"wide.weight", "wide.bias"}
