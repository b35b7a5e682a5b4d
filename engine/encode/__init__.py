"""Frames in order → a finished file, or nothing: the way in.

Called by the front ends, which check an output before anything is rendered, and by the render
loop, which opens a writer and hands it each frame as it is decoded. The invariant: nothing here
loads PyAV or Pillow before a file is opened or an encoder has to be tried.

    choice, reason = choose_encoder(path, "auto", on_device=False, size=(512, 512))
    with open_writer(
        path, size=(512, 512), fps=fps, num_frames=120, metadata=plan, encoder=choice.name
    ) as writer:
        for index, frame in frames:  # in writer.pixel_format
            writer.write(index, frame)
"""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

from giffusion.engine.encode.choice import choose_encoder
from giffusion.engine.encode.encoders import AUTO, EncoderChoice
from giffusion.engine.encode.formats import FORMATS, Size, VideoSpec, output_format
from giffusion.engine.encode.place import write_error
from giffusion.engine.encode.quality import check_quality
from giffusion.engine.encode.sound import SoundTrack, check_sound
from giffusion.engine.encode.writer import Writer
from giffusion.engine.errors import GiffusionError, InputError, OutputError, reason_of

__all__ = [
    "EncoderChoice",
    "SoundTrack",
    "Writer",
    "carries_sound",
    "check_output",
    "check_sound",
    "choose_encoder",
    "open_writer",
    "output_format",
    "read_metadata",
]


def carries_sound(path: Path) -> bool:
    """Returns whether the format of an output can hold sound.

    Raises:
        OutputError: the format is unknown.
    """
    return output_format(path).carries_sound


def check_output(
    path: Path,
    *,
    force: bool,
    fps: Fraction,
    size: Size | None = None,
    encoder: str = AUTO,
    quality: int | None = None,
) -> None:
    """Checks, before anything is rendered, that an output can be written.

    Args:
        path: where it is to go; the extension chooses the format.
        force: a file that is there may be replaced.
        fps: frames a second.
        size: (width, height) of the frames, or None where it is not known yet.
        encoder: name of the encoder, or `auto`; a named one is tried.
        quality: 1 … 100, 100 the best, or None for the encoder's own.

    Raises:
        OutputError: the format is unknown or cannot express the rate or size, the folder is
            missing or not writable, or the path is taken.
        SettingsError: the encoder is unknown, cannot be used for this file on this machine, or has
            no such quality.
    """
    kind = output_format(path)
    problem = kind.problem(fps, size)
    if problem is not None:
        raise OutputError(f"{path}: {problem}")
    kind.place.check(path, force=force)
    choice, _ = choose_encoder(path, encoder, size=size, fps=fps)
    check_quality(quality, choice.info.quality, choice.name)


def open_writer(
    path: Path,
    *,
    size: Size,
    fps: Fraction,
    num_frames: int,
    metadata: str,
    encoder: str = AUTO,
    quality: int | None = None,
    on_device: bool = False,
    force: bool = False,
    keep_partial: bool = False,
    sound: SoundTrack | None = None,
) -> Writer:
    """Starts an output file.

    Args:
        path: where the finished file goes; the extension chooses the format.
        size: (width, height) of every frame, in pixels.
        fps: frames a second, exact.
        num_frames: frames that will be written, at least 1.
        metadata: text that the file carries, the plan as JSON. The encoder belongs into it, so
            `choose_encoder` is asked first and its choice's name given here.
        encoder: name of the encoder, or `auto`.
        quality: 1 … 100, 100 the best, or None for the encoder's own.
        on_device: frames can stay in the memory of an NVIDIA GPU; whether they are to is said by
            the writer's `on_device`.
        force: replace the file that is there.
        keep_partial: when the render ends early, finish the frames there are as
            `NAME.partial.EXT`, numbered where that exists.
        sound: what is heard, from the first frame on and no longer than the frames; `check_sound`
            reads it through before that.

    Raises:
        OutputError: as `check_output`, or the format carries no sound and was given some.
        InputError: the sound cannot be read.
        SettingsError: as `check_output`.
        RenderError: the encoder could not be started.
    """
    check_output(path, force=force, fps=fps, size=size)
    kind = output_format(path)
    if sound is not None and not kind.carries_sound:
        raise OutputError(f"{path}: {kind.name} carries no sound: write .mp4 or .webm")
    choice, _ = choose_encoder(path, encoder, on_device=on_device, size=size, fps=fps)
    check_quality(quality, choice.info.quality, choice.name)
    spec = VideoSpec(size, fps, num_frames, metadata, choice, quality, sound)
    output = kind.place.open(path, force=force)
    try:
        opened = kind.open_encoder(output.temp, spec)
    except BaseException as error:
        output.discard()
        if isinstance(error, Exception) and not isinstance(error, GiffusionError):
            raise write_error(error, output.folder, 0) from error
        raise
    return Writer(output, opened, spec, keep_partial=keep_partial)


def read_metadata(path: Path) -> str | None:
    """Reads the text that a render put into its file.

    Args:
        path: the file; of a sequence its folder, a picture of it, or the pattern of their names.

    Returns:
        The text, or None where the file carries none; of a GIF, whatever comment it has.

    Raises:
        InputError: the file is missing, unreadable or of an unknown kind.
    """
    # Not `Path.is_dir`, which raises for a name that is too long or may not be looked at.
    kind = FORMATS[".png"] if os.path.isdir(path) else output_format(path)
    try:
        return kind.read_metadata(path)
    except Exception as error:
        reason = reason_of(error)
        raise InputError(f"{path} cannot be read as {kind.name}: {reason}") from error
