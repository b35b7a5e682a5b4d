"""What a render is asked to do, as one frozen value with the defaults of every front end.

The CLI reads its defaults from `RenderSettings`, so that they stand in one place. The invariant: a
value that exists is usable by itself; what only the key frames or the model can tell is checked
there. Nothing here imports NumPy: `giffusion --help` loads this module.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from fractions import Fraction
from reprlib import repr as quote

from giffusion.engine.curves import Schedule, parse_schedule
from giffusion.engine.easing import parse_interpolation
from giffusion.engine.emphasis import check_emphasis
from giffusion.engine.errors import SettingsError, nearest
from giffusion.engine.kinds import expected_kind
from giffusion.engine.limits import Limits
from giffusion.engine.sampler_names import canonical_sampler, split_sampler

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
BLENDS = ("slerp", "lerp")
FROM_NOISE = 1.0
"""Strength of a frame that starts from noise alone."""
WITH_IMAGE = 0.5
"""Strength where an init picture is given and none else; above it the picture gives way."""
SCHEDULES = {
    "guidance": Limits(-1000, 1000),
    "steps": Limits(1, MAX_STEPS, whole=True),
    "strength": Limits(0, 1),
    "noise": Limits(0, 2),
    "control_scale": Limits(0, 2),
    # Up to here floats tell each whole number from the next.
    "seed": Limits(0, 2**53),
}
"""The settings that may differ from frame to frame, and what they may be on one."""
# A number that a message does not repeat; Python even refuses to write thousands of digits.
_MANY = 10**40
# Without exponents: `1e999999` would be a number of a million digits. Terms of a fraction may be
# longer than a decimal, which is written as one and has to be read again.
_FPS = re.compile(
    r"[-+]?(?:[0-9]{1,18}\.[0-9]{0,18}|[0-9]{1,36}(?:/0*[1-9][0-9]{0,35})?|\.[0-9]{1,18})"
)


@dataclass(frozen=True, slots=True)
class RenderSettings:
    """Everything besides the key frames that decides what a render looks like.

    Those of `SCHEDULES` take a number, or a schedule as text, such as `0:(4), 30:(4+2*sin(t/5))`;
    see `giffusion.engine.curves`.

    Args:
        fps: frames a second, exact; what the output's format cannot express is refused there.
        seed: of the job, 0 … 2^63 - 1; every key frame derives its own from it. A schedule is the
            seed of each frame instead; between two whole numbers their noises are blended.
        steps: denoising steps a frame, 1 … 1000.
        sampler: one of `giffusion.engine.sampler_names.SAMPLERS`, or another name of one.
        eta: share of DDIM's noise, 0 … 1; other samplers have none.
        guidance: classifier-free guidance scale; at 1 or below only the prompts are evaluated.
        strength: share of the noise schedule that is walked, in (0, 1]; None is 1, and with an
            init picture `WITH_IMAGE`. Below 1 a frame starts from the init picture.
        noise: factor of the noise that a frame starts from, 0 … 2.
        negative: what to steer away from, for key frames that have no `--neg` of their own.
        head: text before every prompt.
        tail: text after every prompt.
        size: (width, height) in pixels, or None for the size the model was trained at.
        num_frames: number of frames, 1 … `MAX_FRAMES`, or None to end at the last key frame;
            frames after the last key frame hold it.
        interpolation: how frames move from a key frame to the next: `linear`, `sine`, `ease` or
            `curve`.
        interpolation_args: what that takes: frequencies, the kind of ease, or a schedule.
        latents: how initial noise is blended, `slerp` or `lerp`.
        embeddings: how prompt embeddings are blended, `slerp` or `lerp`.
        fixed_latent: all frames start from the first key frame's noise.
        loop: after the last key frame the first one follows again, so that the end meets the
            beginning; without `num_frames` as far away as key frames are on average.
        pingpong: after the last frame all are shown again, backwards.
        image: path of the init picture, or None.
        control: maps for the model's ControlNet: path of a picture, for all frames, or a pattern
            such as `FOLDER/%05d.png`, one a frame, numbered from 0; or None.
        control_scale: how far the map steers a frame, 0 … 2; None is 1 with maps, and 0 without.

    Raises:
        SettingsError: a value is out of its range or a name is unknown.
    """

    fps: Fraction = Fraction(24)
    seed: int | str = 0
    steps: int | str = 12
    sampler: str = "dpm++2m"
    eta: float = 0.0
    guidance: float | str = 5.0
    strength: float | str | None = None
    noise: float | str = 1.0
    negative: str = ""
    head: str = ""
    tail: str = ""
    size: tuple[int, int] | None = None
    num_frames: int | None = None
    interpolation: str = "linear"
    interpolation_args: str = ""
    latents: str = "slerp"
    embeddings: str = "slerp"
    fixed_latent: bool = False
    loop: bool = False
    pingpong: bool = False
    image: str | None = None
    control: str | None = None
    control_scale: float | str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.fps, int | Fraction):
            raise SettingsError(
                f"fps {quote(self.fps)} is not exact: expected a Fraction or an int"
            )
        for name in ("seed", "steps", "num_frames"):
            value = getattr(self, name)
            if isinstance(value, float):
                raise SettingsError(f"{name} {quote(value)} is not a whole number: expected an int")
        for field in fields(self):
            value = getattr(self, field.name)
            if (expected := expected_kind(value, str(field.type))) is not None:
                raise SettingsError(f"{field.name} is {quote(value)}: expected {expected}")
        _in_range("fps", self.fps, Fraction(1, 1000), MAX_FPS)
        self._check_schedules()
        self._check_sampler()
        for name in ("negative", "head", "tail"):
            _check_text(name, getattr(self, name))
        if self.size is not None:
            for side in self.size:
                _in_range("size", side, 1, MAX_SIDE)
        if self.num_frames is not None:
            _in_range("frames", self.num_frames, 1, MAX_FRAMES)
        parse_interpolation(self.interpolation, self.interpolation_args)
        for name in ("latents", "embeddings"):
            _one_of(name, getattr(self, name), BLENDS)
        if self.loop and self.pingpong:
            raise SettingsError("loop and pingpong both close the sequence: give one of them")
        if self.control_scale is not None and self.control is None:
            raise SettingsError(
                f"control_scale is {quote(self.control_scale)} and there are no maps: expected "
                "maps by --control"
            )
        if self.fixed_latent and isinstance(self.seed, str):
            raise SettingsError(
                "fixed_latent is one noise for all frames and a schedule of seeds is many: give one"
            )

    def schedule(self, name: str) -> Schedule:
        """Returns a setting that may differ from frame to frame.

        Args:
            name: a key of `SCHEDULES`.
        """
        value = getattr(self, name)
        if value is None and name == "control_scale":
            value = 0.0 if self.control is None else 1.0
        elif value is None:
            value = FROM_NOISE if self.image is None else WITH_IMAGE
        return parse_schedule(value, name, SCHEDULES[name])

    @classmethod
    def default(cls, name: str) -> object:
        """Returns the default of one field, for front ends that show it."""
        return next(f.default for f in fields(cls) if f.name == name)

    def _check_schedules(self) -> None:
        for name in SCHEDULES:
            value = getattr(self, name)
            if isinstance(value, str) and (whole := re.fullmatch(r"\s*([0-9]{1,36})\s*", value)):
                object.__setattr__(self, name, int(whole[1]))
        if isinstance(self.seed, int):
            _in_range("seed", self.seed, 0, MAX_SEED)
        for name in SCHEDULES:
            # A seed by itself may be larger than a float tells from the next.
            if name != "seed" or isinstance(self.seed, str):
                self.schedule(name)

    def _check_sampler(self) -> None:
        object.__setattr__(self, "sampler", canonical_sampler(self.sampler))
        _in_range("eta", self.eta, 0, 1)
        if self.eta and split_sampler(self.sampler)[0] != "ddim":
            raise SettingsError(f"sampler {self.sampler} takes no eta: expected --sampler ddim")


def parse_fps(text: str) -> Fraction:
    """Reads a frame rate: `24`, `23.976`, or exactly as `24000/1001`.

    Raises:
        SettingsError: the text is not a positive number or fraction.
    """
    if _FPS.fullmatch(text.strip()) is None:
        raise SettingsError(
            f"fps {quote(text)} is not a frame rate: expected a number or a fraction such as"
            " 30000/1001"
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
        raise SettingsError(
            f"size {quote(text)} is not a size: expected WIDTHxHEIGHT, such as 128x128"
        )
    width, height = int(match[1]), int(match[2])
    for side in (width, height):
        _in_range("size", side, 1, MAX_SIDE)
    return width, height


def _in_range(
    name: str, value: Fraction | float, low: Fraction | float, high: Fraction | float
) -> None:
    if not low <= value <= high:
        limit = f"at most {high}" if value > high else f"at least {low}"
        raise SettingsError(f"{name} {_shown(value)} is out of range: expected {limit}")


def _shown(value: Fraction | float) -> str:
    terms = (value.numerator, value.denominator) if isinstance(value, int | Fraction) else ()
    return "of many digits" if any(abs(term) >= _MANY for term in terms) else str(value)


def _check_text(name: str, text: str) -> None:
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise SettingsError(f"{name} {quote(text)} is not UTF-8: expected plain text")
    check_emphasis(text, name)


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise SettingsError(f"unknown {name} {quote(value)}: {nearest(value, known)}")
