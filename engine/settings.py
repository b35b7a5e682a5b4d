"""What a render is asked to do, as one frozen value with the defaults of every front end.

The CLI reads its defaults from `RenderSettings`, so that they stand in one place. Nothing here
imports NumPy: `giffusion --help` loads this module.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from fractions import Fraction

from giffusion.engine.errors import SettingsError, nearest

MAX_FRAMES = 1_000_000
"""Eleven hours at 24 frames a second; more is a mistake."""
MAX_STEPS = 1000
MAX_FPS = 1000
MAX_SEED = 2**63 - 1
MAX_BATCH = 1024
DEFAULT_BATCH = 16
GPU_BATCHES = (2, 8, 16, 32)
"""Batches that engines are built for, and that graphs on a GPU can shrink to."""
GPU_DECODE_BATCHES = (1, 4)
"""Pictures a run of the decode graph on a GPU."""
MAX_SIDE = 8192
SAMPLERS = ("ddim", "dpm++2m", "euler", "euler_ads")
INTERPOLATIONS = ("slerp", "lerp")
# Without exponents: `1e999999` would be a number of a million digits.
_FPS = re.compile(r"[-+]?(?:[0-9]{1,18}(?:\.[0-9]{0,18}|/0*[1-9][0-9]{0,17})?|\.[0-9]{1,18})")


@dataclass(frozen=True, slots=True)
class RenderSettings:
    """Everything besides the key frames that decides what a render looks like.

    Args:
        fps: frames a second, exact; GIF rounds each frame's time to a hundredth of a second.
        seed: seed of the job, 0 … 2^63 - 1; every key frame derives its own from it.
        steps: denoising steps a frame, 1 … 1000.
        sampler: one of `SAMPLERS`.
        guidance: classifier-free guidance scale; at 1 or below only the prompts are evaluated.
        negative: what to steer away from, for key frames that have no `--neg` of their own.
        size: (width, height) in pixels, or None for the size the model was trained at.
        num_frames: number of frames, 1 … `MAX_FRAMES`, or None to end at the last key frame;
            frames after the last key frame hold it.
        latents: how initial noise is interpolated, `slerp` or `lerp`.
        embeddings: how prompt embeddings are interpolated, `slerp` or `lerp`.

    Raises:
        SettingsError: a value is out of its range or a name is unknown.
    """

    fps: Fraction = Fraction(24)
    seed: int = 0
    steps: int = 12
    sampler: str = "dpm++2m"
    guidance: float = 5.0
    negative: str = ""
    size: tuple[int, int] | None = None
    num_frames: int | None = None
    latents: str = "slerp"
    embeddings: str = "slerp"

    def __post_init__(self) -> None:
        if not isinstance(self.fps, int | Fraction):
            raise SettingsError(f"fps {self.fps!r} is not exact: expected a Fraction or an int")
        for name in ("seed", "steps", "num_frames"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, int):
                raise SettingsError(f"{name} {value!r} is not a whole number: expected an int")
        _in_range("fps", self.fps, Fraction(1, 1000), MAX_FPS)
        _in_range("seed", self.seed, 0, MAX_SEED)
        _in_range("steps", self.steps, 1, MAX_STEPS)
        _one_of("sampler", self.sampler, SAMPLERS)
        if not (math.isfinite(self.guidance) and abs(self.guidance) <= 1000):
            raise SettingsError(
                f"guidance {self.guidance} is not usable: expected a number from -1000 to 1000"
            )
        if any("\ud800" <= character <= "\udfff" for character in self.negative):
            raise SettingsError(f"negative {self.negative!r} is not UTF-8: expected plain text")
        if self.size is not None:
            for side in self.size:
                _in_range("size", side, 1, MAX_SIDE)
        if self.num_frames is not None:
            _in_range("frames", self.num_frames, 1, MAX_FRAMES)
        _one_of("latents", self.latents, INTERPOLATIONS)
        _one_of("embeddings", self.embeddings, INTERPOLATIONS)

    @classmethod
    def default(cls, name: str) -> object:
        """Returns the default of one field, for front ends that show it."""
        return next(f.default for f in fields(cls) if f.name == name)


def parse_fps(text: str) -> Fraction:
    """Reads a frame rate: `24`, `23.976`, or exactly as `24000/1001`.

    Raises:
        SettingsError: the text is not a positive number or fraction.
    """
    if _FPS.fullmatch(text.strip()) is None:
        raise SettingsError(
            f"fps {text!r} is not a frame rate: expected a number or a fraction such as 30000/1001"
        )
    fps = Fraction(text.strip())
    _in_range("fps", fps, Fraction(1, 1000), MAX_FPS)
    return fps


def parse_size(text: str) -> tuple[int, int]:
    """Reads a picture size, `WIDTHxHEIGHT` in pixels.

    Raises:
        SettingsError: the text is not two positive whole numbers.
    """
    match = re.fullmatch(r"\s*([0-9]{1,6})\s*[xX×]\s*([0-9]{1,6})\s*", text)
    if match is None:
        raise SettingsError(f"size {text!r} is not a size: expected WIDTHxHEIGHT, such as 128x128")
    width, height = int(match[1]), int(match[2])
    for side in (width, height):
        _in_range("size", side, 1, MAX_SIDE)
    return width, height


def _in_range(
    name: str, value: Fraction | float, low: Fraction | float, high: Fraction | float
) -> None:
    if not low <= value <= high:
        limit = f"at most {high}" if value > high else f"at least {low}"
        raise SettingsError(f"{name} {value} is out of range: expected {limit}")


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise SettingsError(f"unknown {name} {value!r}: {nearest(value, known)}")
