"""What the settings of a render say of the user's films and sounds.

`settings.py` checks with it; whoever opens the files asks it which part is meant. The invariant:
what is contradictory, or would have no effect, is refused in a line. Nothing here opens a file.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from giffusion.engine.audio.options import AudioOptions
from giffusion.engine.errors import SettingsError
from giffusion.engine.media.parts import check_order
from giffusion.engine.values import MAX_SECONDS, in_range

if TYPE_CHECKING:
    from giffusion.engine.media.video import FilmCut
    from giffusion.engine.settings import RenderSettings

SOURCES = {"image": "a picture", "video": "a film", "audio": "a sound"}
"""Settings that name a file, and what it is."""
DIGESTED = (*SOURCES, "control")
"""Settings whose files' digests a render writes down."""
MAX_STRIDE = 1000
_NEEDS = {
    "audio": (
        *("audio_start_s", "audio_end_s", "audio_component", "audio_margin"),
        *("audio_reduction", "audio_band", "audio_smooth", "mute"),
    ),
    "video": ("video_start_s", "video_end_s", "video_stride", "keep_audio"),
}
"""Settings of a file, which mean nothing without it."""


def check_media(settings: RenderSettings) -> None:
    """Checks the settings of films and sounds.

    Raises:
        SettingsError: they contradict each other, or a value is out of its range.
    """
    for source, names in _NEEDS.items():
        for name in names if getattr(settings, source) is None else ():
            if getattr(settings, name) != settings.default(name):
                raise SettingsError(
                    f"{option(name)} is given and there is no {source}: expected a file by "
                    f"--{source}"
                )
    _check_sources(settings)
    _check_effects(settings)
    if settings.audio is not None:
        audio_options(settings)
    _check_film(settings)
    if settings.interpolation == "audio" and settings.audio is None:
        raise SettingsError("interpolation audio follows a sound: expected one by --audio")


def audio_options(settings: RenderSettings) -> AudioOptions:
    """Returns what of the sound is listened to.

    Raises:
        SettingsError: a value is out of its range.
    """
    return AudioOptions(
        component=settings.audio_component,
        margin=settings.audio_margin,
        reduction=settings.audio_reduction,
        band=settings.audio_band,
        smooth=settings.audio_smooth,
        start_s=settings.audio_start_s,
        end_s=settings.audio_end_s,
    )


def film_cut(settings: RenderSettings) -> FilmCut | None:
    """Returns which part of the film the frames start from, or None without a film."""
    if settings.video is None:
        return None
    from giffusion.engine.media.video import FilmCut

    return FilmCut(
        Path(settings.video),
        settings.video_start_s,
        settings.video_end_s,
        settings.video_stride,
        settings.resize,
    )


def heard_part(settings: RenderSettings) -> tuple[Path, Fraction, Fraction | None] | None:
    """Returns which file is heard beside the frames, and from where to where; None for silence."""
    if settings.audio is not None and not settings.mute:
        return Path(settings.audio), settings.audio_start_s, settings.audio_end_s
    if settings.video is not None and settings.keep_audio:
        return Path(settings.video), settings.video_start_s, settings.video_end_s
    return None


def _check_sources(settings: RenderSettings) -> None:
    if settings.image is not None and settings.video is not None:
        raise SettingsError("image and video both give what frames start from: give one of them")
    if settings.video is not None and settings.is_chained:
        raise SettingsError(
            "video gives every frame its own picture, and zoom, angle, translate, color_match and "
            "coherence start from the frame before: give one of them"
        )
    if settings.keep_audio and settings.audio is not None:
        raise SettingsError("--keep-audio and --audio both bring a sound: give one of them")


def _check_effects(settings: RenderSettings) -> None:
    """Refuses what nothing in the job would take notice of."""
    shaped = settings.has_init or settings.control is not None
    moving = settings.is_chained
    for name, takes_effect, needed in (
        ("resize", shaped, "a picture or film, by --image, --video or --control"),
        ("padding", moving, "motion, such as --zoom"),
        ("coherence_alpha", settings.coherence > 0, "--coherence"),
        ("coherence_noise", settings.coherence > 0, "--coherence"),
    ):
        if not takes_effect and getattr(settings, name) != settings.default(name):
            raise SettingsError(f"{option(name)} has no effect here: expected it beside {needed}")


def option(name: str) -> str:
    """Returns a setting's name as the command line has it."""
    return "--" + name.removesuffix("_s").replace("_", "-")


def _check_film(settings: RenderSettings) -> None:
    for name in ("video_start_s", "video_end_s"):
        in_range(name, getattr(settings, name) or Fraction(0), 0, MAX_SECONDS)
    in_range("video_stride", settings.video_stride, 1, MAX_STRIDE)
    check_order("film", settings.video_start_s, settings.video_end_s)
    if settings.keep_audio and settings.video_stride != 1:
        raise SettingsError(
            f"keep_audio and stride {settings.video_stride}: the film would be faster than its "
            "sound; give one of them"
        )
