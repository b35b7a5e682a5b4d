"""The user's files that a job's frames are made from, and the digests that say which they were.

A render writes the digests into its file, `giffusion inspect --again` compares them. The invariant:
a file that is read for a frame has a digest.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.batching.mirror import mirrored_frames
from giffusion.engine.conditions.control import maps_digest
from giffusion.engine.conditions.init_latents import check_film_length
from giffusion.engine.conditions.pictures import read_picture
from giffusion.engine.encode import SoundTrack, carries_sound, check_sound
from giffusion.engine.encode.replacing import would_replace
from giffusion.engine.errors import OutputError
from giffusion.engine.media.files import file_digest
from giffusion.engine.media.index import FilmIndex, film_index
from giffusion.engine.media.video import count_frames
from giffusion.engine.media_settings import DIGESTED, SOURCES, film_cut, heard_part
from giffusion.engine.notes import OnNote
from giffusion.engine.timelines.timeline import Timeline


@dataclass(frozen=True, slots=True)
class Media:
    """What was read of a job's files before anything is rendered.

    Args:
        image: the init picture, (H, W, 3) RGB.
        film: where the frames of the init film are.
        sound: what is heard beside the frames.
    """

    image: NDArray[np.uint8] | None = None
    film: FilmIndex | None = None
    sound: SoundTrack | None = None


def check_output_is_no_source(timeline: Timeline, output: Path) -> None:
    """Checks that no file that frames are made from is lost by what is written.

    Args:
        timeline: what is rendered.
        output: the file that is written, or the pattern of a sequence.

    Raises:
        OutputError: the output would take its place, also where it may replace files.
    """
    named = (getattr(timeline.settings, name) for name in DIGESTED)
    for source in filter(None, named):
        if would_replace(output, Path(source)):
            raise OutputError(
                f"{output} would replace {source}, which frames are made from: give the output "
                "another name"
            )


def read_media(timeline: Timeline, size: tuple[int, int], output: Path, on_note: OnNote) -> Media:
    """Reads what a render takes of the user's files, as far as it is not streamed.

    Args:
        timeline: what is rendered.
        size: (width, height) of its frames.
        output: the file that is written.
        on_note: told in a line what of a sound will not be heard, and of a film that is long.

    Raises:
        InputError: a file cannot be read, or has not what is asked of it.
        SettingsError: a frame lies behind the end of the film that it starts from.
    """
    settings, image = timeline.settings, None
    if settings.image is not None:
        image = read_picture(Path(settings.image), size, settings.resize)
    return Media(image, _film(timeline, on_note), _sound(timeline, output, on_note))


def num_shown(timeline: Timeline) -> int:
    """Returns how many frames the file of a job has."""
    num_frames = len(timeline)
    return mirrored_frames(num_frames) if timeline.settings.pingpong else num_frames


def source_digests(timeline: Timeline) -> dict[str, str]:
    """Returns the sha256 of each of a job's files, by the setting that names it.

    Raises:
        InputError: a file is missing or cannot be read.
    """
    named = {name: getattr(timeline.settings, name) for name in SOURCES}
    digests = {
        name: file_digest(Path(path), SOURCES[name])
        for name, path in named.items()
        if path is not None
    }
    maps = maps_digest(timeline)
    return digests if maps is None else {**digests, "control": maps}


def _film(timeline: Timeline, on_note: OnNote) -> FilmIndex | None:
    cut = film_cut(timeline.settings)
    if cut is None:
        return None
    index = film_index(cut.path, on_note)
    num_frames = count_frames(cut, index, timeline.settings.fps)
    check_film_length(timeline, range(len(timeline)), num_frames)
    return index


def _sound(timeline: Timeline, output: Path, on_note: OnNote) -> SoundTrack | None:
    heard = heard_part(timeline.settings)
    if heard is None:
        return None
    if not carries_sound(output):
        on_note(f"{output.suffix} carries no sound: write .mp4 or .webm to hear {heard[0]}")
        return None
    track = SoundTrack(*heard)
    for line in check_sound(track, num_shown(timeline) / timeline.settings.fps):
        on_note(line)
    return track
