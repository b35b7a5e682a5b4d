"""Which encoder a file gets.

Called by `open_writer`, by whoever wants to know before that, and by `doctor`. The invariant: a
named encoder is that encoder or an error; what `auto` chose, and why, is a sentence.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from giffusion.engine.encode.encoders import AUTO, ENCODERS, EncoderChoice, EncoderInfo
from giffusion.engine.encode.formats import OutputFormat, Size, output_format
from giffusion.engine.encode.probe import probe_encoder
from giffusion.engine.errors import SettingsError, nearest

ON_DEVICE = "h264_nvenc"
"""What `auto` prefers for frames that lie in device memory: every GPU with NVENC has it."""


def choose_encoder(
    path: Path,
    name: str = AUTO,
    *,
    on_device: bool = False,
    size: Size | None = None,
    fps: Fraction | None = None,
) -> tuple[EncoderChoice, str]:
    """Chooses the encoder of a file.

    `auto` is the format's own: libx264 for MP4, and h264_nvenc where frames can stay in device
    memory and it works here. A named encoder is tried, once in a process, and never replaced.

    Args:
        path: the file; its extension is its format.
        name: an encoder's name, or `auto`.
        on_device: frames can stay in the memory of an NVIDIA GPU.
        size: (width, height) of the frames, or None where it is not known yet.
        fps: frames a second, or None where it is not known yet.

    Returns:
        The encoder, and a sentence that says which and why.

    Raises:
        OutputError: the format is unknown.
        SettingsError: no encoder has that name, or that one does not write the format, cannot take
            the size or rate, or does not work on this machine.
    """
    kind = output_format(path)
    if name == AUTO:
        return _automatic(kind, on_device=on_device, size=size)
    info = _named(kind, name)
    problem = _problem(info, size, fps)
    if problem is not None:
        others = " or ".join(f"--encoder {other}" for other in (AUTO, kind.encoders[0]))
        raise SettingsError(f"encoder {name} {problem}: give {others}")
    return _choice(info, on_device=on_device), f"{name} (it was asked for)"


def _automatic(
    kind: OutputFormat, *, on_device: bool, size: Size | None
) -> tuple[EncoderChoice, str]:
    own = _choice(ENCODERS[kind.encoders[0]], on_device=False)
    if not on_device:
        return own, f"{own.name} (the usual one for {kind.name})"
    if ON_DEVICE not in kind.encoders:
        return own, f"{own.name} (NVENC does not write {kind.name})"
    problem = _problem(ENCODERS[ON_DEVICE], size)
    if problem is not None:
        return own, f"{own.name} ({ON_DEVICE} {problem})"
    return _choice(ENCODERS[ON_DEVICE], on_device=True), f"{ON_DEVICE} (frames stay on the GPU)"


def _named(kind: OutputFormat, name: str) -> EncoderInfo:
    if name not in ENCODERS:
        raise SettingsError(f"unknown encoder '{name}': {nearest(name, (AUTO, *kind.encoders))}")
    if name not in kind.encoders:
        raise SettingsError(
            f"encoder {name} does not write {kind.name}: expected "
            f"{' or '.join((AUTO, *kind.encoders))}"
        )
    return ENCODERS[name]


def _problem(
    info: EncoderInfo, size: Size | None = None, fps: Fraction | None = None
) -> str | None:
    """Says why an encoder cannot be used, or None; tries it only where nothing else is wrong."""
    if size is not None and min(size) < info.min_side:
        least = f"{info.min_side}x{info.min_side}"
        return f"cannot take size {size[0]}x{size[1]}, it needs at least {least}"
    if fps is not None and info.max_fps is not None and fps > info.max_fps:
        return f"cannot take fps {fps}, it needs at most {info.max_fps}"
    status = probe_encoder(info.name)
    return None if status.works else f"does not work here, {status.reason}"


def _choice(info: EncoderInfo, *, on_device: bool) -> EncoderChoice:
    return EncoderChoice(info, on_device=on_device and info.on_nvidia)
