"""Key-frame text to a timeline, with what only a file can tell: a sound's loudness, a film's rate.

Front ends, `render` and `record.py` call it. The invariant: a timeline that comes from here knows
the loudness of the sound that its settings name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from giffusion.engine.audio.curve import EnergyCurve
from giffusion.engine.media_settings import audio_options, film_cut
from giffusion.engine.notes import OnNote
from giffusion.engine.settings import RenderSettings
from giffusion.engine.timelines.timeline import Timeline


def plan_timeline(
    text: str,
    settings: RenderSettings,
    source: str = "<prompts>",
    on_note: OnNote | None = None,
) -> Timeline:
    """Reads key-frame text and plans it, after listening to the sound that frames follow.

    Args:
        text: in either form of `giffusion.engine.prompts`.
        settings: how it is rendered.
        source: name of the text in messages.
        on_note: told in a line of what takes long, or is heard to be silent.

    Raises:
        PromptError: the text does not follow the grammar.
        SettingsError: the settings contradict the key frames; see `Timeline`.
        InputError: the sound cannot be read.
        RuntimeUnavailableError: what listens to sound is not installed.
    """
    return Timeline.from_text(text, settings, source, _energy(settings, on_note))


def settings_after_film(values: Mapping[str, Any], on_note: OnNote | None = None) -> RenderSettings:
    """Returns settings whose rate and number of frames, where not given, are their film's.

    Args:
        values: fields of `RenderSettings`.
        on_note: told in a line what was taken over, and before it if that takes long.

    Raises:
        SettingsError: as `RenderSettings`.
        InputError: the film cannot be read.
    """
    settings = RenderSettings(**values)
    if settings.video is None or {"fps", "num_frames"} <= values.keys():
        return settings
    cut = film_cut(settings)
    assert cut is not None
    from giffusion.engine.media.index import film_index
    from giffusion.engine.media.video import count_frames

    index = film_index(cut.path, on_note)
    fps = settings.fps if "fps" in values else index.fps
    found = {"fps": fps, "num_frames": count_frames(cut, index, fps), **values}
    if on_note is not None:
        on_note(f"{cut.path}: {found['num_frames']} frames at {fps} a second")
    return RenderSettings(**found)


def _energy(settings: RenderSettings, on_note: OnNote | None) -> EnergyCurve | None:
    if not settings.follows_sound:
        return None
    assert settings.audio is not None, "what is followed is a sound"
    from giffusion.engine.audio.analysis import energy_curve

    path, options = Path(settings.audio), audio_options(settings)
    return energy_curve(path, settings.fps, options, on_note)
