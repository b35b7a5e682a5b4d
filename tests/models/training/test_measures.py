from __future__ import annotations

from pathlib import Path

import pytest
import torch

from giffusion.engine.errors import InputError
from giffusion.models.training import measures
from giffusion.models.training.compose import compose
from giffusion.models.training.drafts import Draft, Layer, pack
from giffusion.models.training.judge import (
    Lessons,
    exercises,
    load_judge,
    look,
    save_judge,
    train_judge,
)
from giffusion.models.training.palette import COLOURS, GROUNDS, plain


def _pixels(side: int = 64) -> torch.Tensor:
    """(2, side, side, 4): a bar across and a bar upright."""
    pixels = torch.zeros(2, side, side, 4, dtype=torch.uint8)
    pixels[..., :3] = 120
    pixels[0, side * 3 // 8 : side * 5 // 8, side // 8 : -side // 8, 3] = 255
    pixels[1, side // 8 : -side // 8, side * 3 // 8 : side * 5 // 8, 3] = 255
    return pixels


def test_rank_counts_what_is_likelier() -> None:
    logits = torch.tensor([0.1, 3.0, 2.0, 1.0])
    assert [measures.rank(logits, [i]) for i in range(4)] == [3, 0, 1, 2]
    assert measures.rank(logits, [0, 2]) == 1


def test_halves_hold_the_two_things_of_a_pair() -> None:
    drafts = [Draft("", (Layer(0, -0.48, 0, 0.5), Layer(1, 0.48, 0, 0.5)), plain((1, 1, 1)))]
    left, right = measures.halves(compose(_pixels(128), pack(drafts)))
    assert left.shape == right.shape == (1, 3, 64, 64)
    assert left[0, 0, 32].mean() < left[0, 0, :, 32].mean()
    assert right[0, 0, 32].mean() > right[0, 0, :, 32].mean()


@pytest.mark.parametrize("name", [name for name in COLOURS if name != "white"])
def test_colours_are_read_off_a_picture(name: str) -> None:
    pixels = _pixels()
    drafts = [Draft("", (Layer(1, 0.1, 0.1, 0.8, tint=COLOURS[name]),), plain((1, 1, 1)))]
    colour = measures.thing_colour(compose(pixels, pack(drafts)))[0]
    expected = measures.expected_colours(pixels, 1)
    assert list(COLOURS)[measures.nearest(colour, expected)] == name


@pytest.mark.parametrize("name", ["green", "light blue", "dark green"])
def test_grounds_are_read_off_the_corners(name: str) -> None:
    drafts = [Draft("", (Layer(0),), plain(GROUNDS[name]))]
    colour = measures.corner_colour(compose(_pixels(), pack(drafts)))[0]
    others = measures.as_tensor(list(GROUNDS.values()))
    assert list(GROUNDS)[measures.nearest(colour, others)] == name


def test_an_even_walk_has_no_flash_and_a_jump_is_one() -> None:
    even = torch.linspace(0, 1, 9)[:, None, None, None].expand(-1, 3, 8, 8).clone()
    assert measures.flash(even) == pytest.approx(1, abs=1e-3)
    even[5:] += 0.5
    assert measures.flash(even) == pytest.approx(5, abs=0.1)


def test_psnr_of_a_known_error() -> None:
    picture = torch.zeros(2, 3, 8, 8)
    assert measures.psnr(picture, picture + 0.2).tolist() == pytest.approx([20, 20], abs=1e-3)


def test_exercises_show_what_they_say() -> None:
    torch.manual_seed(0)
    scenes = exercises(2, 50, torch.device("cpu"))
    assert set(scenes.picture[:, 0].tolist()) == {0, 1}
    assert compose(_pixels(), scenes).shape == (50, 3, 64, 64)


def test_a_judge_learns_and_is_kept(tmp_path: Path) -> None:
    pixels = _pixels()
    lessons = Lessons(seconds=60, steps=80, batch=12, width=8)
    judge = train_judge(pixels, 2, torch.device("cpu"), lessons)
    drafts = [Draft("", (Layer(i % 2, scale=0.9),), plain((1, 1, 1))) for i in range(8)]
    logits = look(judge, compose(pixels, pack(drafts)))
    assert logits.argmax(1).tolist() == [0, 1] * 4
    save_judge(judge, tmp_path / "judge.safetensors")
    again = look(load_judge(tmp_path / "judge.safetensors", 2), compose(pixels, pack(drafts)))
    assert torch.equal(again, logits)


def test_a_file_of_another_kind_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "judge.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match="not a judge of 2 things"):
        load_judge(tmp_path / "judge.safetensors", 2)
