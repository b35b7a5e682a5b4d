"""The names that lines of Python on the page can use."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from giffusion.engine.conditions.control import map_file
from giffusion.engine.conditions.pictures import read_picture
from giffusion.engine.conditions.sources import check_output_is_no_source
from giffusion.engine.encode import SoundTrack, check_output, open_writer
from giffusion.engine.encode.nvenc import sessions
from giffusion.engine.inspiration.topics import parse_topics
from giffusion.engine.media.video import FilmCut
from giffusion.engine.model import load_model
from giffusion.engine.prompts import KeyFrame, Part, parse_prompts
from giffusion.engine.rendering import render
from giffusion.engine.sampling import sampler_table
from giffusion.engine.schedule import NoiseSchedule
from giffusion.engine.schedules.curves import parse_schedule
from giffusion.engine.schedules.easing import segment_weight
from giffusion.engine.schedules.expressions import parse_expression
from giffusion.engine.settings import RenderSettings
from giffusion.engine.timelines.timeline import Timeline
from giffusion.server.settings_text import settings_text


def namespace() -> dict[str, object]:
    """Returns them, by name."""
    named = (
        FilmCut,
        Fraction,
        KeyFrame,
        NoiseSchedule,
        Part,
        Path,
        RenderSettings,
        SoundTrack,
        Timeline,
        check_output,
        check_output_is_no_source,
        load_model,
        map_file,
        open_writer,
        parse_expression,
        parse_prompts,
        parse_schedule,
        parse_topics,
        read_picture,
        render,
        sampler_table,
        segment_weight,
        settings_text,
    )
    return {each.__name__: each for each in named} | {"nvenc_sessions": sessions}
