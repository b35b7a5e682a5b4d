"""What a job's frames start from besides noise: latents of the user's picture, or of its film.

`job_maker.py` opens them for a job. The invariant: files are opened, and what is missing in them is
said, before the job is queued; pixels become latents on the thread that makes conditions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.conditions.conditioning import InitLatents
from giffusion.engine.conditions.pictures import PictureEncoder, read_picture
from giffusion.engine.errors import SettingsError
from giffusion.engine.media_settings import film_cut
from giffusion.engine.settings import FROM_NOISE
from giffusion.engine.timelines.timeline import Timeline

if TYPE_CHECKING:
    from giffusion.engine.media.index import FilmIndex

Close = Callable[[], None]


def picture_latents(
    timeline: Timeline,
    encoder: PictureEncoder,
    size: tuple[int, int],
    image: NDArray[np.uint8] | None,
) -> InitLatents:
    """Reads the picture of a job; it is encoded at the first frame that starts from it.

    Args:
        timeline: the job's; its settings name a picture.
        encoder: what makes latents.
        size: (width, height) of the frames.
        image: the picture, (H, W, 3) RGB, if it has been read already.

    Raises:
        InputError: it cannot be read.
    """
    settings = timeline.settings
    assert settings.image is not None
    if image is None:
        image = read_picture(Path(settings.image), size, settings.resize)
    encoded = cache(partial(encoder.encode, image))
    return lambda frame: encoded()


def film_latents(
    timeline: Timeline,
    frames: range,
    encoder: PictureEncoder,
    size: tuple[int, int],
    film: FilmIndex | None,
) -> tuple[InitLatents, Close]:
    """Opens the film of a job.

    Args:
        timeline: the job's; its settings name a film.
        frames: the segment that is rendered.
        encoder: what makes latents.
        size: (width, height) of the frames.
        film: where its frames are, if it has been read through already.

    Returns:
        Latents by the number of a frame, and what closes the film.

    Raises:
        InputError: it cannot be read.
        SettingsError: a frame that starts from it lies behind its end.
    """
    from giffusion.engine.conditions.film import FilmLatents
    from giffusion.engine.media.video import FilmReader

    settings, cut = timeline.settings, film_cut(timeline.settings)
    assert cut is not None
    # Both are asked on one thread.
    to_read, to_encode = tee(_starting(timeline, frames))
    reader = FilmReader(cut, size, settings.fps, film, to_read)
    try:
        check_film_length(timeline, frames, reader.num_frames)
    except BaseException:
        reader.close()
        raise
    return FilmLatents(reader, encoder, to_encode).latents, reader.close


def check_film_length(timeline: Timeline, frames: range, num_frames: int) -> None:
    """Checks that a film has every frame that a job starts from.

    Args:
        timeline: the job's.
        frames: the segment that is rendered.
        num_frames: of the film, at the job's rate.

    Raises:
        SettingsError: it has not.
    """
    late = next(_starting(timeline, range(max(frames.start, num_frames), frames.stop)), None)
    if late is not None:
        raise SettingsError(
            f"frame {late} starts from {timeline.settings.video}, which has {num_frames} frames at "
            f"this rate: expected --frames {num_frames} or fewer, or --strength 1 from there on"
        )


def _starting(timeline: Timeline, frames: range) -> Iterator[int]:
    """Yields the frames that start from more than noise."""
    return (frame for frame in frames if timeline[frame].strength != FROM_NOISE)
