"""Trains the bundled model: from the corpus to a folder that diffusers and `giffusion export` read.

    python -m giffusion.models.train --prepare --data DATA
    python -m giffusion.models.train --data DATA --work WORK --out OUT --minutes 8
    python -m giffusion.models.train --data DATA --listen MODEL --out OUT --minutes 8

The first command makes the corpus, where there is a network; the second trains, best where there is
a GPU, and ends on time whatever the machine; the third teaches a trained model more phrasings, as
the second does too: on a GPU to text encoder and U-Net, on a CPU to the encoder alone. Two
cores see some sixty pictures a second at 128 pixels and a quarter of that at 256: a CPU is better
given hours, most of them as `--coarse-minutes`, with `--autoencoder VAE --batch 64 --scenes 24000`.
`OUT/model` is the model, `OUT/turbo` the U-Net of its four-step variant. With `--download` the
second is one command from the raw pictures to the model.
The invariant: what is in `OUT` is whole at every moment, and `--resume` goes on from what is in
`WORK`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from giffusion.engine.errors import GiffusionError, SettingsError

if TYPE_CHECKING:
    from giffusion.models.training.listening import ListeningOptions
    from giffusion.models.training.machine import Machine
    from giffusion.models.training.stages import Training

_WORKERS = 4
"""Processes that make lessons for a GPU; on a CPU they would take what trains."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    try:
        _check(options)
        if options.warm:
            _training(options, arguments).warm()
            return 0
        if options.prepare or options.download:
            _prepare(options)
        if options.prepare:
            return 0
        if options.listen:
            _listen(options)
        else:
            _training(options, arguments).run()
    except GiffusionError as error:
        print(f"train: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        if not options.warm:
            resumes = not (options.prepare or options.listen)
            hint = ": --resume goes on from here" if resumes else ""
            print(f"train: interrupted{hint}", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="train", description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder of the corpus")
    add("--prepare", action="store_true", help="make the corpus instead of training")
    add("--download", action="store_true", help="make the corpus first where there is none")
    add("--downloads", type=Path, default=Path("downloads"), help="where packages are kept")
    add("--scenes", type=int, default=300_000, help="scenes to draw, or to train on at most")
    add("--work", type=Path, default=Path("work"), help="folder of checkpoints")
    add("--out", type=Path, default=Path("out"), help="folder of the results")
    add("--size", choices=("bundled", "toy"), default="bundled", help="of the networks")
    add("--image", type=int, help="side of the pictures, a multiple of 32; by default the size's")
    add("--autoencoder", type=Path, help="folder of a vae to use, instead of a new one")
    add("--coarse-image", type=int, default=128, help="side of the pictures of the first minutes")
    add("--coarse-minutes", type=float, default=0.0, help="of it on those; worth it on a CPU")
    add("--minutes", type=float, default=8.0, help="wall clock for everything")
    add(
        "--autoencoder-minutes",
        type=float,
        help="of it for the autoencoder, by default 1.4; or for "
        "the decoder of a given one, by default 0",
    )
    add(
        "--listen-minutes",
        type=float,
        default=0.5,
        help="of it for phrasings; a GPU wants 4; 0: none",
    )
    add("--listen", type=Path, help="a trained model that learns phrasings, for all --minutes")
    add("--listen-batch", type=int, default=256, help="phrasings a step")
    add(
        "--listen-pictures",
        type=int,
        help="of them that the U-Net hears; all on a GPU, else 0",
    )
    add("--listen-turbo", type=Path, help="U-Net of the model's turbo, which then learns as well")
    add("--turbo-minutes", type=float, default=0.0, help="of it for a four-step variant; 0: none")
    add("--steps", type=int, help="steps of each stage, instead of minutes")
    add("--batch", type=int, default=384, help="latents a step")
    add("--autoencoder-batch", type=int, default=16, help="pictures a step, a multiple of four")
    add("--turbo-walks", type=int, default=16_384, help="walks of the teacher")
    add("--rate", type=float, default=1e-3, help="highest learning rate of the U-Net")
    add("--sample-steps", type=int, default=12, help="of the sheets of samples")
    add("--resume", action="store_true", help="go on from the checkpoints in --work")
    add("--device", default=None, help="cuda or cpu; by default the GPU if there is one")
    add("--compile", action=argparse.BooleanOptionalAction, help="by default on a GPU")
    add("--pack", type=Path, help="also write the results in pieces, as FOLDER/result.tar.N")
    add("--warm", action="store_true", help="only compile, so that another run need not")
    return parser


def _check(options: argparse.Namespace) -> None:
    for name in (
        "scenes",
        "image",
        "coarse_image",
        "minutes",
        "steps",
        "batch",
        "autoencoder_batch",
        "listen_batch",
        "turbo_walks",
        "rate",
        "sample_steps",
    ):
        value = getattr(options, name)
        if value is not None and not value > 0:
            flag = "--" + name.replace("_", "-")
            raise SettingsError(f"{flag} {value}: expected more than 0")
    for name in ("image", "coarse_image"):
        if (getattr(options, name) or 0) % 32:
            raise SettingsError(
                f"--{name.replace('_', '-')} {getattr(options, name)}: expected a multiple of 32, "
                "as the U-Net halves the latents, an eighth of it, twice"
            )
    if options.autoencoder_minutes is None:
        options.autoencoder_minutes = 0.0 if options.autoencoder else 1.4
    if not options.autoencoder_minutes >= 0 or not (
        options.autoencoder_minutes or options.autoencoder
    ):
        raise SettingsError(
            f"--autoencoder-minutes {options.autoencoder_minutes}: expected more than 0, or 0 with "
            "--autoencoder"
        )
    later = (options.listen_minutes, options.turbo_minutes)
    if min(later) < 0 or not (options.listen or sum(later) < options.minutes):
        raise SettingsError(
            f"--listen-minutes {later[0]} and --turbo-minutes {later[1]}: expected 0 or more, and "
            f"together less than --minutes {options.minutes}"
        )
    if not 0 <= (options.listen_pictures or 0) <= options.listen_batch:
        raise SettingsError(
            f"--listen-pictures {options.listen_pictures}: expected 0 to --listen-batch "
            f"{options.listen_batch}"
        )
    if options.listen_turbo and not options.listen:
        raise SettingsError(
            f"--listen-turbo {options.listen_turbo}: expected --listen and its model as well"
        )
    if not 0 <= options.coarse_minutes < options.minutes:
        raise SettingsError(
            f"--coarse-minutes {options.coarse_minutes}: expected 0 or more, and less than "
            f"--minutes {options.minutes}"
        )
    if options.autoencoder_batch % 4:
        raise SettingsError(
            f"--autoencoder-batch {options.autoencoder_batch}: expected a multiple of 4, as four "
            "pictures at half their size make one"
        )


def _prepare(options: argparse.Namespace) -> None:
    """Makes the corpus; with --download only where there is none."""
    from giffusion.models.training.prepare import prepare
    from giffusion.models.training.prepared import holds_corpus

    if options.prepare or not holds_corpus(options.data):
        prepare(options.data, options.downloads, num_scenes=options.scenes)


def _listen(options: argparse.Namespace) -> None:
    from giffusion.models.training.existing import ListeningPlan, listen
    from giffusion.models.training.schedule import Budget

    options.out.mkdir(parents=True, exist_ok=True)
    machine, budget = _machine(options), Budget(60 * options.minutes, options.steps)
    plan = ListeningPlan(
        options.listen, options.data, options.out, options.scenes, options.listen_turbo
    )
    listen(plan, machine, budget, _listening(options, machine))


def _listening(options: argparse.Namespace, machine: Machine) -> ListeningOptions:
    from giffusion.models.training.listening import ListeningOptions

    pictures = options.listen_pictures
    if pictures is None:
        pictures = options.listen_batch if machine.is_gpu else 0
    workers = _WORKERS if machine.is_gpu else 0
    return ListeningOptions(options.listen_batch, pictures=pictures, workers=workers)


def _machine(options: argparse.Namespace) -> Machine:
    import torch

    from giffusion.models.training.machine import Machine

    gpu = torch.cuda.is_available() if options.device is None else options.device == "cuda"
    compiles = gpu if options.compile is None else options.compile
    log = None if options.warm else options.out / "log.txt"
    return Machine(torch.device("cuda" if gpu else "cpu"), compiles, log)


def _training(options: argparse.Namespace, arguments: Sequence[str]) -> Training:
    # What needs torch is imported only where it trains, so that --help is quick.
    from giffusion.models.training.autoencoder import AutoencoderOptions
    from giffusion.models.training.diffusion import DiffusionOptions
    from giffusion.models.training.networks import SIZES
    from giffusion.models.training.plan import Plan
    from giffusion.models.training.sampling import SamplingOptions
    from giffusion.models.training.stages import Training
    from giffusion.models.training.turbo import TurboOptions

    sizes, machine = SIZES[options.size], _machine(options)
    plan = Plan(
        command=("-m", "giffusion.models.train", *arguments),
        data=options.data,
        work=options.work,
        out=options.out,
        sizes=replace(sizes, image=options.image or sizes.image),
        minutes=options.minutes,
        autoencoder_minutes=options.autoencoder_minutes,
        listen_minutes=options.listen_minutes,
        turbo_minutes=options.turbo_minutes,
        steps=options.steps,
        scenes=options.scenes,
        resume=options.resume,
        pack=options.pack,
        start_autoencoder=options.autoencoder,
        coarse_image=options.coarse_image,
        coarse_minutes=options.coarse_minutes,
        diffusion=DiffusionOptions(batch=options.batch, rate=options.rate),
        autoencoder=AutoencoderOptions(batch=options.autoencoder_batch),
        sampling=SamplingOptions(steps=options.sample_steps),
        listening=_listening(options, machine),
        turbo=TurboOptions(walks=options.turbo_walks, batch=options.batch),
    )
    return Training(plan, machine)


if __name__ == "__main__":
    sys.exit(main())
