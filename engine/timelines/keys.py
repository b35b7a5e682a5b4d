"""Key frames with the job's defaults filled in, and the conditions of what lies between two.

`timeline.py` calls it. The invariant: on a key frame its conditions depend on that one alone, and
the weights of a frame's conditions sum to 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise, zip_longest

from giffusion.engine.errors import SettingsError
from giffusion.engine.prompts import KeyFrame, Part
from giffusion.engine.schedules.easing import Weight, ease, hold
from giffusion.engine.settings import MAX_FRAMES, RenderSettings
from giffusion.engine.timelines.plans import ConditionRow, PromptBlend

_GAMMA = 0x9E3779B97F4A7C15
_PADDING = Part("", 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Key:
    """A key frame as a job renders it.

    Args:
        frame: its number.
        seed: of its noise.
        negative: what to steer away from.
        parts: prompts whose weights are divided by their number.
        mean: sum of those weights.
        weight: the next key frame's weight, from the share of the way there; None where the job
            has a curve over the frames.
        hold: share of the way to the next key frame on which it stays; part of `weight`.
        is_cut: the key before it is held until here.
    """

    frame: int
    seed: int
    negative: str
    parts: tuple[Part, ...]
    mean: float
    weight: Weight | None
    hold: float
    is_cut: bool = False


def resolve_keys(
    key_frames: Sequence[KeyFrame], settings: RenderSettings, seed: int, weight: Weight | None
) -> tuple[list[Key], int]:
    """Fills in what key frames leave to the job, and closes a loop.

    Args:
        key_frames: ascending.
        settings: the job's.
        seed: the job's, which the key frames' are derived from.
        weight: the job's weights between two key frames; None for a curve over the frames.

    Returns:
        The keys, where the sequence loops with the first again as the last, and the number of
        frames.

    Raises:
        SettingsError: no key frame, some that do not ascend, a seed that the settings leave no
            room for, or a loop that has no frame to close in.
    """
    _check_key_frames(key_frames, settings)
    keys = [_resolve(key_frame, settings, seed, weight) for key_frame in key_frames]
    if settings.fixed_latent:
        keys = [replace(key, seed=keys[0].seed) for key in keys]
    num_frames = settings.num_frames or keys[-1].frame + 1
    if settings.loop:
        num_frames = settings.num_frames or _closing_frame(keys)
        if num_frames <= keys[-1].frame:
            last = keys[-1].frame
            raise SettingsError(
                f"loop has no frame after the last key frame, {last}: expected --frames "
                f"{last + 1} or more, or no --frames"
            )
        if num_frames > MAX_FRAMES:
            raise SettingsError(
                f"loop closes after {num_frames} frames: expected at most {MAX_FRAMES}, "
                "by --frames or by key frames that are nearer"
            )
        keys.append(replace(keys[0], frame=num_frames))
    return keys, num_frames


def condition_rows(start: Key, end: Key, weight: float, guidance: float) -> list[ConditionRow]:
    """Returns the conditions at a weight between two keys.

    Args:
        start: the key at or before the frame.
        end: the key after it.
        weight: how far the frame is from one to the other, in [0, 1].
        guidance: classifier-free guidance scale; at 1 or below there is no negative row.

    Returns:
        All rows, the negative one first, with those whose weight is 0.
    """
    blends = [(blend, _lerp(first, last, weight)) for blend, first, last in part_blends(start, end)]
    mean = _lerp(start.mean, end.mean, weight)
    if guidance <= 1:
        return [ConditionRow(prompt, share / mean) for prompt, share in blends]
    blend = PromptBlend(start.negative, end.negative)
    negative = ConditionRow(blend, 1 - guidance * mean, is_negative=True)
    return [negative, *(ConditionRow(prompt, guidance * share) for prompt, share in blends)]


def part_blends(start: Key, end: Key) -> Iterator[tuple[PromptBlend, float, float]]:
    """Yields the parts between two keys, with their weights at the one and at the other."""
    for a, b in zip_longest(start.parts, end.parts, fillvalue=_PADDING):
        yield PromptBlend(a.text, b.text), a.weight, b.weight


def check_sums(start: Key, end: Key) -> None:
    """Checks that weights between two keys can be normalised, for guidance of 1 or below.

    Raises:
        SettingsError: their sum passes through 0.
    """
    if min(start.mean, end.mean) <= 0 <= max(start.mean, end.mean):
        raise SettingsError(
            f"weights from key frame {start.frame} to key frame {end.frame} pass through sum 0: "
            "expected sums of one sign at guidance 1 or below; change a weight or the guidance"
        )


def derive_seed(seed: int, frame: int) -> int:
    """Derives a key frame's seed from the job's, as element `frame` of a SplitMix64 sequence.

    See Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators". The sequence
    starts from the job's finalised seed, so that neighbouring jobs share no noise.

    Args:
        seed: of the job, 0 … 2^63 - 1.
        frame: number of the key frame.

    Returns:
        The high 53 bits, which every JSON reader keeps exactly.
    """
    return _finalise(_finalise(seed) + (frame + 1) * _GAMMA) >> 11


def early_seed(settings: RenderSettings) -> int | None:
    """Returns the job's seed, or None where it hangs on a number of frames that is not given."""
    if isinstance(settings.seed, int):
        return settings.seed
    values: dict[str, float | Fraction] = {"fps": settings.fps}
    if settings.num_frames is not None:
        values["max_f"] = settings.num_frames - 1
    try:
        return math.floor(settings.schedule("seed").bind(values).at(0))
    except SettingsError:  # what else is wrong with it is said when the frames are known
        return None


def _finalise(state: int) -> int:
    state &= 2**64 - 1
    state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & 2**64 - 1
    state = (state ^ state >> 27) * 0x94D049BB133111EB & 2**64 - 1
    return state ^ state >> 31


def _resolve(
    key_frame: KeyFrame, settings: RenderSettings, seed: int, weight: Weight | None
) -> Key:
    frame, parts, held = key_frame.frame, key_frame.parts, key_frame.hold or 0.0
    shares = tuple(Part(part.text, part.weight / len(parts)) for part in parts)
    own = weight if key_frame.ease is None else ease(key_frame.ease)
    return Key(
        frame=frame,
        seed=derive_seed(seed, frame) if key_frame.seed is None else key_frame.seed,
        negative=settings.negative if key_frame.negative is None else key_frame.negative,
        parts=shares,
        mean=math.fsum(share.weight for share in shares),
        weight=hold(own, held) if own is not None and held else own,
        hold=held,
        is_cut=key_frame.is_cut,
    )


def _closing_frame(keys: Sequence[Key]) -> int:
    """Returns where a loop closes: as far from the last key as keys are from each other."""
    num_gaps = max(len(keys) - 1, 1)
    gap = (2 * (keys[-1].frame - keys[0].frame) + num_gaps) // (2 * num_gaps)
    return keys[-1].frame + max(gap, 1)


def _check_key_frames(key_frames: Sequence[KeyFrame], settings: RenderSettings) -> None:
    if not key_frames:
        raise SettingsError("no key frame: expected one or more, such as '0: a corgi'")
    for before, after in pairwise(key_frames):
        if before.frame >= after.frame:
            frames = f"{before.frame} and then {after.frame}"
            raise SettingsError(f"key frames {frames}: expected ascending ones, each once")
    if settings.fixed_latent:
        _check_no_seeds(key_frames[1:], "--fixed-latent")
    if isinstance(settings.seed, str):
        _check_no_seeds(key_frames, "a schedule of seeds")


def _check_no_seeds(key_frames: Sequence[KeyFrame], beside: str) -> None:
    for key_frame in key_frames:
        if key_frame.seed is not None:
            raise SettingsError(
                f"key frame {key_frame.frame} has --seed {key_frame.seed} beside {beside}, "
                "which decides every frame's noise: remove one of the two"
            )


def _lerp(start: float, end: float, weight: float) -> float:
    return start + weight * (end - start)
