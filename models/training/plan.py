"""What a training trains, how long, and where its files are.

`train.py` makes a `Plan` from its command line and `stages` carries it out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from giffusion.models.training.autoencoder import AutoencoderOptions
from giffusion.models.training.diffusion import DiffusionOptions
from giffusion.models.training.listening import ListeningOptions
from giffusion.models.training.networks import Sizes
from giffusion.models.training.sampling import SamplingOptions
from giffusion.models.training.turbo import TurboOptions


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
        autoencoder_minutes: of it, the autoencoder's; 0 to take one as it is.
        listen_minutes: of it, for more phrasings, or 0 for none.
        turbo_minutes: of it, the four-step variant's, or 0 for none.
        steps: of each stage, or None to go by the minutes.
        scenes: how many are trained on at most.
        resume: whether to go on from what is in `work`.
        pack: folder of the results in pieces, or None.
        start_autoencoder: folder of an `AutoencoderTiny` to use instead of training one, or None;
            its minutes are then its decoder's.
        coarse_image: side of the pictures that the U-Net is trained on first, below that of
            `sizes`: what things are is learned there in a fraction of the time.
        coarse_minutes: how long, of the whole; 0 for not at all.
        diffusion: how the U-Net is trained.
        autoencoder: how the autoencoder is.
        sampling: how the sheets of samples are drawn.
        listening: how phrasings are learned.
        turbo: how the variant is.
    """

    command: tuple[str, ...]
    data: Path
    work: Path
    out: Path
    sizes: Sizes
    minutes: float
    autoencoder_minutes: float
    listen_minutes: float
    turbo_minutes: float
    steps: int | None
    scenes: int
    resume: bool
    pack: Path | None
    start_autoencoder: Path | None
    coarse_image: int
    coarse_minutes: float
    diffusion: DiffusionOptions
    autoencoder: AutoencoderOptions
    sampling: SamplingOptions
    listening: ListeningOptions
    turbo: TurboOptions
