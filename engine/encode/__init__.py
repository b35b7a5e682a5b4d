"""Frames in order → a finished file, or nothing: the way in.

Called by the front ends, which check an output before anything is rendered, and by the render
loop, which opens a writer and hands it each frame as it is decoded. The invariant: nothing here
loads PyAV or Pillow before a file is opened.

    with open_writer(path, size=(512, 512), fps=fps, num_frames=120, metadata=plan) as writer:
        for index, frame in frames:
            writer.write(index, frame)
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from giffusion.engine.encode.formats import Size, VideoSpec, output_format
from giffusion.engine.encode.output import OutputFile, check_place, write_error
from giffusion.engine.encode.writer import Writer
from giffusion.engine.errors import InputError, OutputError, one_line

__all__ = ["Writer", "check_output", "open_writer", "output_format", "read_metadata"]


def check_output(path: Path, *, force: bool, fps: Fraction, size: Size | None = None) -> None:
    """Checks, before anything is rendered, that an output can be written.

    Args:
        path: where it is to go; the extension chooses the format.
        force: a file that is there may be replaced.
        fps: frames a second.
        size: (width, height) of the frames, or None where it is not known yet.

    Raises:
        OutputError: the format is unknown or cannot express the rate or size, the folder is
            missing or not writable, or the path is taken.
    """
    problem = output_format(path).problem(fps, size)
    if problem is not None:
        raise OutputError(f"{path}: {problem}")
    check_place(path, force=force)


def open_writer(
    path: Path,
    *,
    size: Size,
    fps: Fraction,
    num_frames: int,
    metadata: str,
    force: bool = False,
    keep_partial: bool = False,
) -> Writer:
    """Starts an output file.

    Args:
        path: where the finished file goes; the extension chooses the format.
        size: (width, height) of every frame, in pixels.
        fps: frames a second, exact.
        num_frames: frames that will be written, at least 1.
        metadata: text that the file carries, the plan as JSON.
        force: replace the file that is there.
        keep_partial: when the render ends early, finish the frames there are as
            `NAME.partial.EXT`, numbered where that exists.

    Raises:
        OutputError: as `check_output`.
        RenderError: the encoder could not be started.
    """
    check_output(path, force=force, fps=fps, size=size)
    spec = VideoSpec(size, fps, num_frames, metadata)
    output = OutputFile(path, force=force)
    try:
        encoder = output_format(path).open_encoder(output.temp, spec)
    except BaseException as error:
        output.discard()
        if isinstance(error, Exception):
            raise write_error(error, output.folder, 0) from error
        raise
    return Writer(output, encoder, spec, keep_partial=keep_partial)


def read_metadata(path: Path) -> str | None:
    """Reads the text that a render put into its file.

    Returns:
        The text, or None where the file carries none; of a GIF, whatever comment it has.

    Raises:
        InputError: the file is missing, unreadable or of an unknown kind.
    """
    kind = output_format(path)
    try:
        return kind.read_metadata(path)
    except Exception as error:
        reason = one_line(getattr(error, "strerror", None) or error)
        raise InputError(f"{path} cannot be read as {kind.name}: {reason}") from error
