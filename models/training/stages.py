"""The stages of a training one after the other, each within its share of the time.

`train.py` makes a `Plan` from its command line and runs it here. The invariant: whatever stops the
training, `Plan.out` holds the last whole model, and `Plan.work` what a resumed one goes on from.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from giffusion.models.training.autoencoder import (
    reconstruction_psnr,
    train_autoencoder,
    train_decoder,
)
from giffusion.models.training.checkpoints import (
    load_diffusion,
    load_network,
    load_tensors,
    save_diffusion,
    save_network,
    save_tensors,
)
from giffusion.models.training.diffusion import (
    Corpus,
    new_state,
    train_diffusion,
    velocity_loss,
)
from giffusion.models.training.latents import Gallery, draw_pictures, encode_scenes
from giffusion.models.training.listening import rephrased, teach
from giffusion.models.training.machine import Machine
from giffusion.models.training.networks import (
    NUM_TOKENS,
    Denoiser,
    autoencoder,
)
from giffusion.models.training.plan import Plan
from giffusion.models.training.prepared import Prepared, load_prepared
from giffusion.models.training.pretrained import load_autoencoder
from giffusion.models.training.publish import pack, publish, publish_part, replaced
from giffusion.models.training.sampling import SamplingOptions
from giffusion.models.training.schedule import Budget, alphas_cumprod
from giffusion.models.training.sheets import turbo_options, write_sheets
from giffusion.models.training.tokens import load_tokenizer, token_ids
from giffusion.models.training.turbo import train_turbo

_ENDING_S = 15.0
"""Seconds that the last stage needs: samples, and writing."""

_PATIENCE_S = 60.0
"""Seconds that the diffusion waits for what is compiled ahead; then it compiles on its own."""

_SEEN = 64
"""Pictures that the autoencoder is measured on."""


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
        self._corpora: dict[int, Corpus] = {}
        self._warming: subprocess.Popen[bytes] | None = None
        for folder in (plan.work, plan.out):
            folder.mkdir(parents=True, exist_ok=True)

    def run(self) -> None:
        """Trains and publishes.

        Raises:
            InputError: there is no corpus, or a checkpoint to resume from is another model's.
        """
        self._warming = self._start_warming()
        prepared = load_prepared(self._plan.data)
        gallery = Gallery.of(prepared, self._plan.scenes, self._machine.device)
        self._machine.log(f"{len(prepared.names)} names, {len(gallery.scenes)} scenes")
        coder = self._autoencoder(gallery)
        trained = self._diffusion(gallery, prepared, coder)
        if self._plan.listen_minutes > 0:
            self._listen(trained, gallery, coder, prepared)
        self._sheets("samples", trained, coder, prepared, self._plan.sampling)
        if self._plan.turbo_minutes > 0:
            corpus = self._corpus(gallery, coder, self._plan.sizes.image)
            self._turbo(trained, corpus, coder, prepared)
        self._pack()
        self._machine.log("done")

    def warm(self) -> None:
        """Compiles the U-Net's step and keeps nothing but the compiler's files."""
        sizes, machine, size = self._plan.sizes, self._machine, self._plan.diffusion.batch
        state = new_state(self._denoiser(), machine, self._plan.diffusion)
        latents = torch.randn(size, 4, sizes.latent, sizes.latent, device=machine.device)
        ids = torch.zeros(size, NUM_TOKENS, dtype=torch.long, device=machine.device)
        unet, alphas = machine.compiled(state.model.unet), alphas_cumprod().to(machine.device)
        loss = velocity_loss(state.model, unet, latents, ids, alphas, machine)
        loss.backward()  # type: ignore[no-untyped-call]

    def _start_warming(self) -> subprocess.Popen[bytes] | None:
        """Another process compiles the U-Net while this one makes latents.

        The compiler's files are what they share; a resumed training finds them there.
        """
        if not self._machine.compile or self._plan.resume:
            return None
        environment = {**os.environ, "TORCHINDUCTOR_COMPILE_THREADS": "8"}
        return subprocess.Popen([sys.executable, *self._plan.command, "--warm"], env=environment)

    def _end_warming(self) -> None:
        warming, self._warming = self._warming, None
        if warming is None:
            return
        try:
            warming.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            warming.kill()
            warming.wait()
        self._machine.log(f"compiling ahead ended with status {warming.returncode}")

    def _denoiser(self) -> Denoiser:
        """A new one on the machine."""
        model = Denoiser.new(self._plan.sizes).to(self._machine.device)
        self._machine.arrange(model.unet)
        return model

    def _autoencoder(self, gallery: Gallery) -> nn.Module:
        """Trains or loads the autoencoder."""
        plan, path = self._plan, self._plan.work / "autoencoder.safetensors"
        pixels = gallery.pixels(plan.sizes.image)

        def draw(size: int) -> Tensor:
            return draw_pictures(pixels, gallery.scenes, size)

        if plan.start_autoencoder is None:
            coder, train = autoencoder(plan.sizes), train_autoencoder
        else:
            coder, train = load_autoencoder(plan.start_autoencoder), train_decoder
        coder.to(self._machine.device)
        is_saved = plan.resume and path.exists()
        if plan.autoencoder_minutes > 0 and is_saved:
            load_network(path, coder)
        elif plan.autoencoder_minutes > 0:
            budget = Budget(60 * plan.autoencoder_minutes, plan.steps)
            train(coder, draw, self._machine, budget, plan.autoencoder)
            save_network(path, coder)
        psnr = reconstruction_psnr(coder, draw(_SEEN), self._machine)
        self._machine.log(f"autoencoder: {psnr:.2f} dB")
        return coder

    def _corpus(self, gallery: Gallery, coder: nn.Module, side: int) -> Corpus:
        """Encodes all scenes at a size, unless they are the last that were."""
        if side not in self._corpora:
            self._corpora = {side: self._encoded(gallery, coder, side)}
        return self._corpora[side]

    def _encoded(self, gallery: Gallery, coder: nn.Module, side: int) -> Corpus:
        """Encodes all scenes, or reads what an interrupted training encoded."""
        path, count = self._plan.work / f"latents-{side}.safetensors", len(gallery.scenes)
        stored = load_tensors(path)[0]["latents"] if self._plan.resume and path.exists() else None
        if stored is not None and len(stored) >= count:
            latents = stored[:count].to(self._machine.device)
        else:
            latents = encode_scenes(coder, gallery.pixels(side), gallery.scenes, self._machine)
            save_tensors(path, {"latents": latents}, {})
        deviation = float(latents[:_SEEN].float().std())
        self._machine.log(f"latents {tuple(latents.shape)}, deviation {deviation:.3f}")
        return Corpus(latents, gallery.token_ids, gallery.empty_ids)

    def _diffusion(self, gallery: Gallery, prepared: Prepared, coder: nn.Module) -> Denoiser:
        """Trains U-Net and text encoder, and returns them with their averaged weights."""
        plan, machine, path = self._plan, self._machine, self._plan.work / "diffusion.safetensors"
        state, averaged = new_state(self._denoiser(), machine, plan.diffusion), self._denoiser()
        spent = load_diffusion(path, state) if plan.resume and path.exists() else 0.0
        later = plan.listen_minutes + plan.turbo_minutes
        left = self._clock.left - 60 * later - _ENDING_S
        budget = Budget(spent + max(1.0, left), plan.steps, spent)

        def save() -> None:
            save_diffusion(path, state, budget.elapsed)
            state.average.copy_to(averaged)
            publish(plan.out / "model", averaged, coder, prepared.tokenizer)
            self._pack()
            machine.log(f"saved at step {state.step}")

        def train(side: int, until: float) -> None:
            if budget.progress(state.step) < until:
                corpus = self._corpus(gallery, coder, side)
                self._end_warming()
                train_diffusion(state, corpus, machine, budget, plan.diffusion, save, until)

        try:
            train(plan.coarse_image, 60 * plan.coarse_minutes / budget.seconds)
            train(plan.sizes.image, 1.0)
        except KeyboardInterrupt:
            if state.step:
                save()
            raise
        save()
        return averaged

    def _listen(
        self, trained: Denoiser, gallery: Gallery, coder: nn.Module, prepared: Prepared
    ) -> None:
        """Teaches the averaged networks phrasings, and publishes them."""
        plan, latents = self._plan, None
        if plan.listening.pictures:
            latents = self._corpus(gallery, coder, plan.sizes.image).latents
        budget = Budget(60 * plan.listen_minutes, plan.steps)
        lessons = rephrased(prepared, latents, plan.listening)
        teach(trained, lessons, latents, self._machine, budget, plan.listening)
        publish(plan.out / "model", trained, coder, prepared.tokenizer)

    def _turbo(
        self, trained: Denoiser, corpus: Corpus, coder: nn.Module, prepared: Prepared
    ) -> None:
        seconds = max(1.0, self._clock.left - _ENDING_S)
        budget = Budget(seconds, self._plan.steps)
        unet = train_turbo(trained, corpus, self._machine, budget, self._plan.turbo)
        with replaced(self._plan.out / "turbo") as part:
            publish_part(part, unet)
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
