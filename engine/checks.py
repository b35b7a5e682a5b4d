"""Whether a job can be rendered, asked before anything is loaded.

Front ends call it before they open a runtime, and the engine for every job that is submitted. The
invariant: what passes here cannot fail later for what the user wrote, but for the files it names.
"""

from __future__ import annotations

from giffusion.engine.batching.batch import sampler_steps
from giffusion.engine.contract import LATENT_CHANNELS
from giffusion.engine.errors import SettingsError
from giffusion.engine.model import Model, latent_size
from giffusion.engine.motion.coherence import scale_limits
from giffusion.engine.sampling import start_step
from giffusion.engine.settings import FROM_NOISE, MAX_BATCH, RenderSettings
from giffusion.engine.timelines.timeline import Timeline


def check_job(model: Model, timeline: Timeline, settings: RenderSettings, *, batch: int) -> None:
    """Checks that a job can be rendered.

    Args:
        model: the model.
        timeline: what to render.
        settings: how.
        batch: rows of a lane's batch.

    Raises:
        SettingsError: the batch is out of its range, a frame has more conditions than it has rows,
            the size does not suit the model, the sampler cannot take the number of steps on some
            frame, a frame starts from an init picture and there is none, the coherence overshoots
            at that size, or there are maps and the model has no ControlNet.
    """
    check_batch(batch)
    height, width = latent_size(model.check_size(settings.size))
    scale_limits(LATENT_CHANNELS * height * width).check(settings.coherence, "coherence")
    if settings.control is not None and not model.has_control:
        raise SettingsError(
            f"model '{model.manifest.name}' has no ControlNet, which --control needs: export its "
            "checkpoint with --controlnet DIR"
        )
    timeline = timeline.for_model(model_guides=model.guides)
    if timeline.max_rows > batch:
        raise SettingsError(
            f"batch {batch} has fewer rows than a frame needs, {timeline.max_rows}, one for each "
            f"prompt and the negative: expected --batch {timeline.max_rows} or more"
        )
    checked: set[tuple[int, int]] = set()
    for frame, steps, strength in timeline.walks():
        if strength != FROM_NOISE and not (settings.has_init or settings.is_chained):
            raise SettingsError(
                f"strength is {strength:g} on frame {frame} and there is no picture to start from: "
                "expected 1, or an init picture by --image or --video"
            )
        try:
            walk = steps, start_step(steps, strength)
            if walk not in checked:
                sampler_steps(model, settings.sampler, steps, strength, settings.eta)
        except SettingsError as error:
            raise SettingsError(f"frame {frame}: {error}") from error
        checked.add(walk)


def check_batch(batch: int) -> None:
    """Checks the number of rows of a batch.

    Raises:
        SettingsError: it is out of its range.
    """
    if not 1 <= batch <= MAX_BATCH:
        raise SettingsError(f"batch {batch} is out of range: expected 1 to {MAX_BATCH}")
