"""The stages of a training one after the other, each within its share of the time.

`train.py` makes a `Plan` from its command line and runs it. The invariant: whatever stops the
training, `Plan.out` holds the last whole model, and `Plan.work` what a resumed one goes on from.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from giffusion.models.training.autoencoder import (
    AutoencoderOptions,
    Draw,
    reconstruction_psnr,
    train_autoencoder,
)
from giffusion.models.training.checkpoints import (
    load_diffusion,
    load_network,
    save_diffusion,
    save_network,
)
from giffusion.models.training.diffusion import (
    Corpus,
    DiffusionOptions,
    new_state,
    train_diffusion,
    velocity_loss,
)
from giffusion.models.training.latents import draw_pictures, encode_scenes
from giffusion.models.training.machine import Machine
from giffusion.models.training.networks import NUM_TOKENS, Denoiser, Sizes, autoencoder
from giffusion.models.training.prepared import Prepared, load_prepared
from giffusion.models.training.publish import pack, publish, publish_unet
from giffusion.models.training.sampling import SamplingOptions
from giffusion.models.training.schedule import Budget, alphas_cumprod
from giffusion.models.training.sheets import turbo_options, write_sheets
from giffusion.models.training.tokens import load_tokenizer, token_ids
from giffusion.models.training.turbo import TurboOptions, train_turbo

_ENDING_S = 15.0
"""Seconds that the last stage needs: samples, and writing."""

_PATIENCE_S = 60.0
"""Seconds that the diffusion waits for what is compiled ahead; then it compiles on its own."""

_SEEN = 64
"""Pictures that the autoencoder is measured on."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is trained, how long, and where the files are.

    Attributes:
        command: arguments of Python that run the same plan in another process.
        data: folder of the corpus.
        work: folder of checkpoints.
        out: folder of the results.
        sizes: of the networks.
        minutes: wall clock of the whole training.
        autoencoder_minutes: of it, the autoencoder's.
        turbo_minutes: of it, the four-step variant's, or 0 for none.
        steps: of each stage, or None to go by the minutes.
        scenes: how many are trained on at most.
        resume: whether to go on from what is in `work`.
        pack: folder of the results in pieces, or None.
        diffusion: how the U-Net is trained.
        autoencoder: how the autoencoder is.
        sampling: how the sheets of samples are drawn.
        turbo: how the variant is.
    """

    command: tuple[str, ...]
    data: Path
    work: Path
    out: Path
    sizes: Sizes
    minutes: float
    autoencoder_minutes: float
    turbo_minutes: float
    steps: int | None
    scenes: int
    resume: bool
    pack: Path | None
    diffusion: DiffusionOptions
    autoencoder: AutoencoderOptions
    sampling: SamplingOptions
    turbo: TurboOptions


class Training:
    """A plan on a machine.

    Args:
        plan: what is trained.
        machine: where.
    """

    def __init__(self, plan: Plan, machine: Machine) -> None:
        self._plan = plan
        self._machine = machine
        self._clock = Budget(60 * plan.minutes)
        for folder in (plan.work, plan.out):
            folder.mkdir(parents=True, exist_ok=True)

    def run(self) -> None:
        """Trains and publishes.

        Raises:
            InputError: there is no corpus, or a checkpoint to resume from is another model's.
        """
        warming = self._start_warming()
        corpus, prepared, coder = self._corpus()
        if warming is not None:
            self._await(warming)
        trained = self._diffusion(corpus, prepared, coder)
        self._sheets("samples", trained, coder, prepared, self._plan.sampling)
        if self._plan.turbo_minutes > 0:
            self._turbo(trained, corpus, coder, prepared)
        self._pack()
        self._machine.log("done")

    def warm(self) -> None:
        """Compiles the U-Net's step and keeps nothing but the compiler's files."""
        sizes, machine, size = self._plan.sizes, self._machine, self._plan.diffusion.batch
        state = new_state(Denoiser(sizes).to(machine.device), machine, self._plan.diffusion)
        latents = torch.randn(size, 4, sizes.latent, sizes.latent, device=machine.device)
        ids = torch.zeros(size, NUM_TOKENS, dtype=torch.long, device=machine.device)
        unet, alphas = machine.compiled(state.model.unet), alphas_cumprod().to(machine.device)
        loss = velocity_loss(state.model, unet, latents, ids, alphas, machine)
        loss.backward()  # type: ignore[no-untyped-call]

    def _start_warming(self) -> subprocess.Popen[bytes] | None:
        """Another process compiles the U-Net while this one trains the autoencoder.

        The compiler's files are what they share; a resumed training finds them there.
        """
        if not self._machine.compile or self._plan.resume:
            return None
        environment = {**os.environ, "TORCHINDUCTOR_COMPILE_THREADS": "8"}
        return subprocess.Popen([sys.executable, *self._plan.command, "--warm"], env=environment)

    def _await(self, warming: subprocess.Popen[bytes]) -> None:
        try:
            warming.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            warming.kill()
            warming.wait()
        self._machine.log(f"compiling ahead ended with status {warming.returncode}")

    def _corpus(self) -> tuple[Corpus, Prepared, nn.Module]:
        """Loads the corpus, trains or loads the autoencoder, and encodes all scenes."""
        device = self._machine.device
        prepared = load_prepared(self._plan.data)
        count = min(self._plan.scenes, len(prepared.scenes))
        scenes = prepared.scenes[:count].to(device)
        pixels = _resized(prepared.pixels, self._plan.sizes.image).to(device)
        self._machine.log(f"{len(prepared.names)} names, {count} scenes")
        coder = autoencoder(self._plan.sizes).to(device)

        def draw(size: int) -> Tensor:
            return draw_pictures(pixels, scenes, size)

        self._autoencoder(coder, draw)
        latents = encode_scenes(coder, pixels, scenes, self._machine)
        deviation = float(latents[:_SEEN].float().std())
        self._machine.log(f"latents {tuple(latents.shape)}, deviation {deviation:.3f}")
        ids = prepared.token_ids[:count].to(device)
        return Corpus(latents, ids, prepared.empty_ids.to(device)), prepared, coder

    def _autoencoder(self, coder: nn.Module, draw: Draw) -> None:
        plan, path = self._plan, self._plan.work / "autoencoder.safetensors"
        if plan.resume and path.exists():
            load_network(path, coder)
        else:
            budget = Budget(60 * plan.autoencoder_minutes, plan.steps)
            train_autoencoder(coder, draw, self._machine, budget, plan.autoencoder)
            save_network(path, coder)
        psnr = reconstruction_psnr(coder, draw(_SEEN), self._machine)
        self._machine.log(f"autoencoder: {psnr:.2f} dB")

    def _diffusion(self, corpus: Corpus, prepared: Prepared, coder: nn.Module) -> Denoiser:
        """Trains U-Net and text encoder, and returns them with their averaged weights."""
        plan, machine, path = self._plan, self._machine, self._plan.work / "diffusion.safetensors"
        state = new_state(Denoiser(plan.sizes).to(machine.device), machine, plan.diffusion)
        averaged = Denoiser(plan.sizes).to(machine.device)
        spent = load_diffusion(path, state) if plan.resume and path.exists() else 0.0
        left = self._clock.left - 60 * plan.turbo_minutes - _ENDING_S
        budget = Budget(spent + max(1.0, left), plan.steps, spent)

        def save() -> None:
            save_diffusion(path, state, budget.elapsed)
            state.average.copy_to(averaged)
            publish(plan.out / "model", averaged, coder, prepared.tokenizer)
            self._pack()
            machine.log(f"saved at step {state.step}")

        train_diffusion(state, corpus, machine, budget, plan.diffusion, save)
        save()
        return averaged

    def _turbo(
        self, trained: Denoiser, corpus: Corpus, coder: nn.Module, prepared: Prepared
    ) -> None:
        seconds = max(1.0, self._clock.left - _ENDING_S)
        budget = Budget(seconds, self._plan.steps)
        unet = train_turbo(trained, corpus, self._machine, budget, self._plan.turbo)
        publish_unet(self._plan.out / "turbo", unet)
        trained.unet = unet
        self._sheets("turbo", trained, coder, prepared, turbo_options(self._plan.sampling))

    def _sheets(
        self,
        stem: str,
        model: Denoiser,
        coder: nn.Module,
        prepared: Prepared,
        options: SamplingOptions,
    ) -> None:
        tokenizer = load_tokenizer(prepared.tokenizer)

        def tokenize(captions: Sequence[str]) -> Tensor:
            return torch.from_numpy(token_ids(tokenizer, captions)).long()

        write_sheets(self._plan.out, stem, model, coder, tokenize, self._machine, options)

    def _pack(self) -> None:
        if self._plan.pack is not None:
            self._plan.pack.mkdir(parents=True, exist_ok=True)
            pack(self._plan.out, self._plan.pack / "result.tar")


def _resized(pixels: Tensor, side: int) -> Tensor:
    """RGBA pictures (n, s, s, 4) at another side, which divides theirs."""
    if pixels.shape[1] == side:
        return pixels
    planes = F.avg_pool2d(pixels.permute(0, 3, 1, 2).float(), pixels.shape[1] // side)
    return planes.permute(0, 2, 3, 1).round().byte()
