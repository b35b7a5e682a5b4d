from __future__ import annotations

import math

import pytest
import torch

from giffusion.models.training.compose import compose
from giffusion.models.training.drafts import Draft, Layer, pack
from giffusion.models.training.palette import COLOURS, WHITE, Ground, plain

SIDE = 32
PAPER = plain(WHITE)


def _square(red: int = 200, green: int = 40, blue: int = 40) -> torch.Tensor:
    """(1, 32, 32, 4): an opaque square in the middle of nothing, darker in its lower half."""
    pixels = torch.zeros(1, SIDE, SIDE, 4, dtype=torch.uint8)
    pixels[0, 8:24, 8:24] = torch.tensor([red, green, blue, 255], dtype=torch.uint8)
    pixels[0, 16:24, 8:24, :3] //= 2
    return pixels


def _paint(
    *layers: Layer, ground: Ground = PAPER, pixels: torch.Tensor | None = None
) -> torch.Tensor:
    """(32, 32, 3) in [0, 1]."""
    scenes = pack([Draft("", layers, ground)])
    picture = compose(_square() if pixels is None else pixels, scenes)
    assert picture.shape == (1, 3, SIDE, SIDE)
    assert float(picture.abs().max()) <= 1
    return (picture[0].permute(1, 2, 0) + 1) / 2


def test_a_picture_in_place_is_itself_on_the_ground() -> None:
    painted = _paint(Layer(0))
    assert torch.allclose(painted[10, 16], torch.tensor([200, 40, 40]) / 255, atol=0.01)
    assert torch.allclose(painted[2, 2], torch.ones(3))


def test_place_moves_towards_the_right_and_down() -> None:
    painted = _paint(Layer(0, x=0.5, y=0.5, scale=0.9))
    assert float(painted[8, 8].min()) > 0.99
    assert float(painted[22, 24, 1]) < 0.5


def test_scale_shrinks_about_the_centre() -> None:
    painted = _paint(Layer(0, scale=0.5))
    inside = painted[..., 1] < 0.6
    assert 7 <= int(inside.any(0).sum()) <= 10


def test_a_quarter_turn_and_a_mirror() -> None:
    upright = _paint(Layer(0))
    turned = _paint(Layer(0, rotation=math.pi / 2))
    assert torch.allclose(turned, upright.transpose(0, 1).flip(1), atol=0.02)
    beside = _paint(Layer(0, x=0.25))
    mirrored = _paint(Layer(0, x=0.25, flip=True))
    assert torch.allclose(mirrored, beside, atol=0.02)


def test_a_mirror_swaps_left_and_right() -> None:
    pixels = _square()
    pixels[0, :, 16:, :3] = 0
    painted, mirrored = _paint(Layer(0), pixels=pixels), _paint(Layer(0, flip=True), pixels=pixels)
    assert torch.allclose(mirrored, painted.flip(1), atol=0.02)


def test_the_second_layer_covers_the_first() -> None:
    pixels = torch.cat([_square(), _square(40, 200, 40)])
    assert float(_paint(Layer(0), Layer(1), pixels=pixels)[10, 16, 1]) > 0.7
    assert float(_paint(Layer(1), Layer(0), pixels=pixels)[10, 16, 1]) < 0.3


@pytest.mark.parametrize("name", ["red", "green", "blue", "yellow", "black"])
def test_a_tint_is_the_mean_colour_and_keeps_the_form(name: str) -> None:
    painted = _paint(Layer(0, tint=COLOURS[name]), pixels=_square(150, 150, 150))
    mean = painted[8:24, 8:24].mean((0, 1))
    nearest = min(COLOURS, key=lambda other: float((mean - torch.tensor(COLOURS[other])).norm()))
    assert nearest == name
    assert float(painted[20, 16].sum()) < float(painted[10, 16].sum())


def test_a_ground_has_a_top_and_a_bottom() -> None:
    ground = Ground((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), 0.5, 0.1)
    painted = _paint(Layer(0, scale=0.2), ground=ground)
    assert torch.allclose(painted[0, 0], torch.tensor([0.0, 0.0, 1.0]), atol=0.01)
    assert torch.allclose(painted[-1, 0], torch.tensor([0.0, 1.0, 0.0]), atol=0.01)
    assert float(painted[16, 0, 2]) > 0.9


def test_a_batch_is_its_scenes() -> None:
    drafts = [Draft("", (Layer(0, x=x / 10, scale=0.4 + x / 20),), plain(WHITE)) for x in range(6)]
    scenes = pack(drafts)
    together = compose(_square(), scenes)
    apart = torch.cat([compose(_square(), scenes[i : i + 1]) for i in range(6)])
    assert torch.allclose(together, apart, atol=1e-5)
