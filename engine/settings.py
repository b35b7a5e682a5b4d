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

from giffusion.engine.audio.options import HEARD
from giffusion.engine.errors import SettingsError
from giffusion.engine.kinds import expected_kind
from giffusion.engine.media.fitting import RESIZES
from giffusion.engine.media_settings import check_media
from giffusion.engine.sampler_names import canonical_sampler, split_sampler
from giffusion.engine.schedules.curves import SERIES, Schedule, parse_schedule
from giffusion.engine.schedules.easing import parse_interpolation
from giffusion.engine.schedules.limits import Limits
from giffusion.engine.values import MAX_FPS, MAX_SIDE, check_text, in_range, one_of

MAX_FRAMES = 1_000_000
"""Eleven hours at 24 frames a second; more is a mistake."""
MAX_STEPS = 1000
MAX_SEED = 2**63 - 1
MAX_BATCH = 1024
DEFAULT_BATCH = 16
GPU_BATCHES = (2, 8, 16, 32)
"""Batches that engines are built for, and that graphs on a GPU can shrink to."""
GPU_DECODE_BATCHES = (1, 4)
"""Pictures a run of the decode graph on a GPU."""
BLENDS = ("slerp", "lerp")
PADDINGS = ("border", "reflection", "zeros")
MOTION = {"zoom": 1.0, "angle": 0.0, "translate_x": 0.0, "translate_y": 0.0}
"""The settings that move a frame, and what each is where the frame stays as it is."""
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
    "zoom": Limits(0.01, 100),
    "angle": Limits(-36_000, 36_000),
    "translate_x": Limits(-MAX_SIDE, MAX_SIDE),
    "translate_y": Limits(-MAX_SIDE, MAX_SIDE),
    # Up to here floats tell each whole number from the next.
    "seed": Limits(0, 2**53),
}
"""The settings that may differ from frame to frame, and what they may be on one."""


@dataclass(frozen=True, slots=True)
class RenderSettings:
    """Everything besides the key frames that decides what a render looks like.

    Those of `SCHEDULES` take a number, or a schedule as text, such as `0:(4), 30:(4+2*sin(t/5))`;
    see `giffusion.engine.schedules.curves`.

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
        interpolation: how frames move from a key frame to the next: `linear`, `sine`, `ease`,
            `curve` or `audio`.
        interpolation_args: what that takes: frequencies, the kind of ease, or a schedule.
        latents: how initial noise is blended, `slerp` or `lerp`.
        embeddings: how prompt embeddings are blended, `slerp` or `lerp`.
        fixed_latent: all frames start from the first key frame's noise.
        loop: after the last key frame the first one follows again, so that the end meets the
            beginning; without `num_frames` as far away as key frames are on average.
        pingpong: after the last frame all are shown again, backwards.
        image: path of the init picture, or None.
        resize: what is done where pictures and films have another shape than the frames: `crop`,
            `pad` or `stretch`.
        control: maps for the model's ControlNet: path of a picture, for all frames, or a pattern
            such as `FOLDER/%05d.png`, one a frame, numbered from 0; or None.
        control_scale: how far the map steers a frame, 0 … 2; None is 1 with maps, and 0 without.
        video: path of the film whose frames are init pictures: frame i starts from what it shows
            at `video_start_s + i · video_stride / fps`; or None.
        video_start_s: where in the film the first frame is, in seconds.
        video_end_s: where the film ends, or None for its own end.
        video_stride: every how many-th frame is taken; 2 shows the film at twice its speed.
        keep_audio: let the film's sound be heard, in formats that carry sound.
        audio: path of a sound, which is heard in formats that carry one. Schedules know its
            loudness on a frame, 0 … 1, as `audio`, and interpolation `audio` moves by it; or None.
        audio_start_s: where in the sound the first frame is, in seconds.
        audio_end_s: where the sound ends, or None for its own end.
        audio_component: what is listened to, and the next four: see
            `giffusion.engine.audio.options.AudioOptions`.
        audio_margin: how much a component has to exceed the other.
        audio_reduction: over the frequencies: `max`, `mean` or `median`.
        audio_band: (lowest, highest) frequency in Hz, or None for all.
        audio_smooth: share of a steady motion in interpolation `audio`, 0 … 1.
        mute: leave the sound out of the file.
        zoom: factor by which the picture before a frame is enlarged about its centre; any of the
            four that is not None makes frames follow from each other.
        angle: degrees by which it is turned, counter-clockwise.
        translate_x: pixels by which it is moved to the right.
        translate_y: pixels by which it is moved down.
        padding: what comes in from outside of it: `border`, `reflection` or `zeros`.
        color_match: match each frame's colours to the first one's; frames follow from each other.
        coherence: how strongly what a frame starts from is pulled to what the frames before started
            from, 0 to half the number of latents; above 0 frames follow from each other.
        coherence_alpha: how fast that follows, 0 … 1.
        coherence_noise: deviation of the noise that is added, 0 … 1.

    Raises:
        SettingsError: a value is out of its range or a name is unknown.
    """

    fps: Fraction = Fraction(24)
    seed: int | str = 0
    steps: int | str = 12
    sampler: str = "dpm++2m"
    eta: float = 0.0
    guidance: float | str = 3.0
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
    resize: str = "crop"
    control: str | None = None
    control_scale: float | str | None = None
    video: str | None = None
    video_start_s: Fraction = Fraction(0)
    video_end_s: Fraction | None = None
    video_stride: int = 1
    keep_audio: bool = False
    audio: str | None = None
    audio_start_s: Fraction = Fraction(0)
    audio_end_s: Fraction | None = None
    audio_component: str = HEARD.component
    audio_margin: float = HEARD.margin
    audio_reduction: str = HEARD.reduction
    audio_band: tuple[float, float] | None = HEARD.band
    audio_smooth: float = HEARD.smooth
    mute: bool = False
    zoom: float | str | None = None
    angle: float | str | None = None
    translate_x: float | str | None = None
    translate_y: float | str | None = None
    padding: str = "border"
    color_match: bool = False
    coherence: float = 0.0
    coherence_alpha: float = 1.0
    coherence_noise: float = 0.01

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
        for name in ("fps", "video_start_s", "video_end_s", "audio_start_s", "audio_end_s"):
            if isinstance(value := getattr(self, name), int):
                object.__setattr__(self, name, Fraction(value))
        in_range("fps", self.fps, Fraction(1, 1000), MAX_FPS)
        self._check_schedules()
        self._check_sampler()
        for name in ("negative", "head", "tail"):
            check_text(name, getattr(self, name))
        if self.size is not None:
            for side in self.size:
                in_range("size", side, 1, MAX_SIDE)
        if self.num_frames is not None:
            in_range("frames", self.num_frames, 1, MAX_FRAMES)
        parse_interpolation(self.interpolation, self.interpolation_args)
        for name in ("latents", "embeddings"):
            one_of(name, getattr(self, name), BLENDS)
        one_of("padding", self.padding, PADDINGS)
        one_of("resize", self.resize, RESIZES)
        check_media(self)
        in_range("coherence", self.coherence, 0, 1e9)
        for name in ("coherence_alpha", "coherence_noise"):
            in_range(name, getattr(self, name), 0, 1)
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
        text = self._unset(name) if value is None else value
        return parse_schedule(text, name, SCHEDULES[name], SERIES)

    @property
    def has_init(self) -> bool:
        """Whether frames have a picture of the user's to start from."""
        return self.image is not None or self.video is not None

    @property
    def follows_sound(self) -> bool:
        """Whether any frame depends on how loud the sound is."""
        if self.audio is None:
            return False
        bent = parse_interpolation(self.interpolation, self.interpolation_args).schedule
        schedules = [self.schedule(name) for name in SCHEDULES]
        heard = any("audio" in schedule.names for schedule in (*schedules, bent) if schedule)
        return heard or self.interpolation == "audio"

    @property
    def is_chained(self) -> bool:
        """Whether each frame is made from the one before it."""
        moves = any(getattr(self, name) is not None for name in MOTION)
        return moves or self.color_match or self.coherence > 0

    def _unset(self, name: str) -> float:
        """Returns what a schedule is where the others decide it."""
        if name in MOTION:
            return MOTION[name]
        if name == "control_scale":
            return 0.0 if self.control is None else 1.0
        return WITH_IMAGE if self.has_init or self.is_chained else FROM_NOISE

    @classmethod
    def default(cls, name: str) -> object:
        """Returns the default of one field, for front ends that show it."""
        return next(f.default for f in fields(cls) if f.name == name)

    def _check_schedules(self) -> None:
        for name in SCHEDULES:
            value = getattr(self, name)
            if isinstance(value, str) and (whole := re.fullmatch(r"\s*(-?[0-9]{1,36})\s*", value)):
                object.__setattr__(self, name, int(whole[1]))
        if isinstance(self.seed, int):
            in_range("seed", self.seed, 0, MAX_SEED)
        for name in SCHEDULES:
            # A seed by itself may be larger than a float tells from the next.
            if name != "seed" or isinstance(self.seed, str):
                self.schedule(name)

    def _check_sampler(self) -> None:
        object.__setattr__(self, "sampler", canonical_sampler(self.sampler))
        in_range("eta", self.eta, 0, 1)
        if self.eta and split_sampler(self.sampler)[0] != "ddim":
            raise SettingsError(f"sampler {self.sampler} takes no eta: expected --sampler ddim")
