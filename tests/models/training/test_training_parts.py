"""The parts of a training: schedules, averages, losses and files, against diffusers' own."""

from __future__ import annotations

import tarfile
from io import BytesIO
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from giffusion.engine.errors import InputError, SettingsError
from giffusion.models.training.autoencoder import mosaic, reconstruction_loss, scale_latents
from giffusion.models.training.averages import MovingAverage
from giffusion.models.training.checkpoints import (
    load_diffusion,
    load_network,
    save_diffusion,
    save_network,
)
from giffusion.models.training.diffusion import (
    Corpus,
    DiffusionOptions,
    DiffusionState,
    new_state,
    velocity_loss,
)
from giffusion.models.training.machine import Machine
from giffusion.models.training.networks import SCHEDULER, TOY, Denoiser, autoencoder, coder
from giffusion.models.training.publish import PIECE_BYTES, pack
from giffusion.models.training.schedule import (
    Budget,
    alphas_cumprod,
    learning_rate,
    spread_timesteps,
)
from giffusion.models.training.turbo import STEPS, angles, jump, levels

CPU = torch.device("cpu")


@pytest.fixture
def machine() -> Machine:
    return Machine(CPU)


def _scheduler() -> DDIMScheduler:
    return DDIMScheduler.from_config(SCHEDULER)


def _corpus(count: int = 8) -> Corpus:
    ids = torch.randint(2, 100, (count, 24), dtype=torch.int16)
    empty = torch.tensor([0] + [1] * 23, dtype=torch.int16)
    return Corpus(torch.randn(count, 4, 8, 8).half(), ids, empty)


def test_noise_levels_are_those_of_diffusers() -> None:
    torch.testing.assert_close(alphas_cumprod(), _scheduler().alphas_cumprod)
    assert alphas_cumprod()[-1].sqrt() < 0.02


def test_timesteps_cover_all_levels_evenly() -> None:
    timesteps = spread_timesteps(100, 1000, CPU)
    assert (timesteps // 10).tolist() == list(range(100))


def test_the_learning_rate_rises_then_falls_to_a_hundredth() -> None:
    assert learning_rate(1.0, 0, 0.0, 10) == pytest.approx(0.1)
    assert learning_rate(1.0, 9, 0.0, 10) == pytest.approx(1.0)
    assert learning_rate(1.0, 500, 0.5, 10) == pytest.approx(0.505)
    assert learning_rate(1.0, 999, 1.0, 10) == pytest.approx(0.01)


def test_a_budget_counts_what_was_spent_before() -> None:
    assert Budget(100.0, spent=50.0).progress(0) == pytest.approx(0.5, abs=0.01)
    assert Budget(0.0, steps=4).progress(1) == 0.25
    assert Budget(1.0, spent=2.0).progress(0) == 1.0


def test_the_average_forgets_the_beginning_and_follows() -> None:
    model = nn.Linear(2, 1, bias=False)
    average = MovingAverage(model, 0.9)
    with torch.no_grad():
        model.weight.fill_(1.0)
    for step in range(200):
        average.update(step)
    torch.testing.assert_close(average.values["weight"], model.weight.detach())
    before = average.values["weight"].clone()
    with torch.no_grad():
        model.weight.fill_(2.0)
    average.update(1000)
    torch.testing.assert_close(average.values["weight"], 0.9 * before + 0.1 * 2.0)
    other = nn.Linear(2, 1, bias=False)
    average.copy_to(other)
    torch.testing.assert_close(other.weight.detach(), average.values["weight"])


def test_a_mosaic_holds_each_image_at_half_its_size() -> None:
    images = torch.arange(8.0)[:, None, None, None].expand(8, 1, 4, 4)
    tiled = mosaic(images)
    assert tiled.shape == (2, 1, 4, 4)
    assert set(tiled.flatten().tolist()) == set(range(8))
    assert all((tiled == value).sum() == 4 for value in range(8))


def test_the_reconstruction_loss_is_zero_for_the_same_pictures_alone() -> None:
    pictures = torch.rand(2, 3, 16, 16)
    assert reconstruction_loss(pictures, pictures) == 0
    shifted = pictures.roll(1, 3)
    assert reconstruction_loss(shifted, pictures) > reconstruction_loss(pictures * 0.99, pictures)


def test_latents_are_scaled_to_unit_variance(machine: Machine) -> None:
    torch.manual_seed(0)
    model = autoencoder(TOY)
    pictures = torch.rand(32, 3, 64, 64)
    scale_latents(model, lambda count: pictures[:count], machine, 32)
    with torch.no_grad(), machine.autocast():
        latents = coder(model).encoder(pictures).float()
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(4), atol=0.05, rtol=0)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(4), atol=0.05, rtol=0)


def test_an_untrained_network_predicts_zero_and_is_told_the_velocity(machine: Machine) -> None:
    torch.manual_seed(0)
    model, alphas = Denoiser.new(TOY), alphas_cumprod()
    told: list[Tensor] = []

    def spy(noisy: Tensor, timesteps: Tensor, states: Tensor, **_: object) -> tuple[Tensor]:
        told.extend((noisy, timesteps))
        return (model.unet(noisy, timesteps, states, return_dict=False)[0],)

    latents = torch.randn(64, 4, 8, 8)
    ids = torch.ones(64, 24, dtype=torch.long)
    loss = velocity_loss(model, spy, latents, ids, alphas, machine)
    noisy, timesteps = told
    signal = alphas[timesteps].sqrt()[:, None, None, None]
    noise = (noisy - signal * latents) / (1 - signal**2).sqrt()
    velocity = _scheduler().get_velocity(latents, noise, timesteps)
    torch.testing.assert_close(loss, velocity.square().mean())


def test_a_training_that_diverges_ends_in_a_line(machine: Machine) -> None:
    report = machine.report("diffusion", Budget(60.0), 4)
    for step in range(1, 20):
        report.step(step, torch.tensor(0.5))
    with pytest.raises(SettingsError, match="diffusion: the loss is nan at step 20: lower its"):
        report.step(20, torch.tensor(float("nan")))


def test_captions_are_dropped_at_the_rate_that_is_asked_for() -> None:
    torch.manual_seed(0)
    corpus = _corpus()
    _, ids = corpus.draw(4000, 0.12)
    share = (ids == corpus.empty_ids.long()).all(1).float().mean()
    assert 0.09 < float(share) < 0.15
    _, ids = corpus.draw(100, 0.0)
    assert not (ids == corpus.empty_ids.long()).all(1).any()


def _stepped(state: DiffusionState, machine: Machine, seed: int) -> None:
    torch.manual_seed(seed)
    latents, ids = torch.randn(2, 4, 8, 8), torch.ones(2, 24, dtype=torch.long)
    loss = velocity_loss(state.model, state.model.unet, latents, ids, alphas_cumprod(), machine)
    loss.backward()  # type: ignore[no-untyped-call]
    machine.update(state.optimizer, state.model)
    state.average.update(state.step)
    state.step += 1


def _state(machine: Machine) -> DiffusionState:
    """Laid out in memory as on a GPU."""
    model = Denoiser.new(TOY)
    model.unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return new_state(model, machine, DiffusionOptions())


def test_a_resumed_training_goes_on_as_if_it_had_not_stopped(
    tmp_path: Path, machine: Machine
) -> None:
    torch.manual_seed(0)
    state = _state(machine)
    _stepped(state, machine, 1)
    save_diffusion(tmp_path / "state.safetensors", state, 12.5)
    resumed = _state(machine)
    assert load_diffusion(tmp_path / "state.safetensors", resumed) == 12.5
    assert resumed.step == 1
    for parameter in resumed.model.unet.parameters():
        moments = dict(resumed.optimizer.state[parameter])
        moments.pop("step", None)
        assert moments.keys() in ({"exp_avg", "exp_avg_sq"}, {"momentum"})
        assert {moment.stride() for moment in moments.values()} == {parameter.stride()}
    for one in (state, resumed):
        _stepped(one, machine, 2)
    for name, value in state.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], value)
    for name, value in state.average.values.items():
        torch.testing.assert_close(resumed.average.values[name], value)


def test_a_checkpoint_of_another_model_is_refused_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "network.safetensors"
    save_network(path, nn.Linear(2, 3))
    load_network(path, nn.Linear(2, 3))
    with pytest.raises(InputError, match=r"bias has the shape \(3,\), expected \(4,\)"):
        load_network(path, nn.Linear(2, 4))
    path.write_bytes(b"no safetensors")
    with pytest.raises(InputError, match="not a checkpoint of this training"):
        load_network(path, nn.Linear(2, 3))
    with pytest.raises(InputError, match="not a checkpoint of this training"):
        load_network(tmp_path / "absent", nn.Linear(2, 3))


def test_the_pieces_of_a_folder_join_to_a_tar_file(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    content = torch.randint(256, (PIECE_BYTES + 7,), dtype=torch.uint8).numpy().tobytes()
    (folder / "weights").write_bytes(content)
    (tmp_path / "r.tar.9").write_bytes(b"older")
    pieces = pack(folder, tmp_path / "r.tar")
    assert [piece.name for piece in pieces] == ["r.tar.0", "r.tar.1"]
    assert sorted(tmp_path.glob("r.tar.*")) == pieces
    with tarfile.open(fileobj=BytesIO(b"".join(p.read_bytes() for p in pieces))) as tar:
        file = tar.extractfile("out/weights")
        assert file is not None
        assert file.read() == content


def test_the_student_steps_as_ddim_does() -> None:
    scheduler = _scheduler()
    scheduler.set_timesteps(STEPS)
    walked = levels(STEPS)
    assert walked[:-1].tolist() == scheduler.timesteps.tolist()
    turns = angles(walked, alphas_cumprod()).diff().neg()
    latents, velocity = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    for number, timestep in enumerate(scheduler.timesteps):
        expected = scheduler.step(velocity, timestep, latents).prev_sample
        stepped = jump(latents, velocity, turns[number])
        torch.testing.assert_close(stepped, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("steps", [8, 12, 24])
def test_the_teacher_passes_the_student_s_levels(steps: int) -> None:
    assert levels(steps)[:: steps // STEPS].tolist() == levels(STEPS).tolist()
