"""Key frames and settings to what each frame is rendered from, as plain numbers and texts.

Conditioning, the scheduler and `giffusion plan` read it. The invariant: a frame's plan depends on
the two key frames around it and on the settings, and on a key frame it depends on that one alone.
Nothing is stored per frame, and nothing here imports NumPy: planning has to start fast.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import chain, pairwise, zip_longest
from operator import attrgetter

from giffusion.engine.errors import SettingsError
from giffusion.engine.prompts import KeyFrame, Part
from giffusion.engine.settings import RenderSettings

FROM_NOISE = 1.0
"""Strength of a frame that starts from noise alone."""
_GAMMA = 0x9E3779B97F4A7C15
_JSON_NAMES = {"from_key": "from", "to_key": "to", "seeds": "seed"}
_PADDING = Part("", 0.0)


@dataclass(frozen=True, slots=True)
class PromptBlend:
    """The prompt that a row has at the key frame before a frame, and at the one after it."""

    start: str
    end: str


@dataclass(frozen=True, slots=True)
class ConditionRow:
    """One row of the UNet's batch.

    Args:
        prompt: what the row's embeddings are interpolated between.
        weight: factor of the row's output in the guidance sum; a frame's weights sum to 1.
    """

    prompt: PromptBlend
    weight: float


@dataclass(frozen=True, slots=True)
class FramePlan:
    """Everything that decides what one frame looks like, besides the model and its numerics.

    Args:
        frame: number of the frame, from 0.
        time_s: when it is shown, in seconds.
        from_key: frame number of the key frame at or before it.
        to_key: frame number of the key frame after it; equal to `from_key` on a key frame, before
            the first and after the last.
        weight: how far the frame is from `from_key` to `to_key`, in [0, 1).
        guidance: classifier-free guidance scale.
        steps: denoising steps.
        strength: share of the noise schedule that is walked, in (0, 1].
        seeds: of the noise at `from_key` and at `to_key`.
        rows: the conditions, the negative one first; none has the weight 0.
    """

    frame: int
    time_s: float
    from_key: int
    to_key: int
    weight: float
    guidance: float
    steps: int
    strength: float
    seeds: tuple[int, int]
    rows: tuple[ConditionRow, ...]

    def to_dict(self) -> dict[str, object]:
        """Returns the plan in the form that is written as JSON, one name for each field."""
        rows = [{"prompt": [r.prompt.start, r.prompt.end], "weight": r.weight} for r in self.rows]
        names = {field.name: _JSON_NAMES.get(field.name, field.name) for field in fields(self)}
        plan = {name: getattr(self, field) for field, name in names.items()}
        return plan | {"seed": list(self.seeds), "rows": rows}


class Timeline:
    """The plans of all frames: `len(timeline)`, `timeline[frame]`, `for plan in timeline`.

    A first key frame above 0 holds from frame 0; the last one holds to the end.

    Args:
        key_frames: one or more, ascending, as `parse_prompts` returns them.
        settings: `num_frames` None ends the sequence at the last key frame.

    Raises:
        SettingsError: no key frame, key frames that do not ascend, or
            weights that cannot be normalised to sum 1 on some frame.
    """

    def __init__(self, key_frames: Sequence[KeyFrame], settings: RenderSettings) -> None:
        _check_ascending(key_frames)
        self.settings = settings
        self._keys = [_resolve(key_frame, settings) for key_frame in key_frames]
        self._num_frames = settings.num_frames or key_frames[-1].frame + 1
        for start, end in self._segments() if settings.guidance <= 1 else ():
            _check_sums(start, end)

    def __len__(self) -> int:
        return self._num_frames

    def __getitem__(self, frame: int) -> FramePlan:
        """Plans one frame.

        Raises:
            IndexError: the frame is below 0 or not below `len(self)`.
        """
        if not 0 <= frame < self._num_frames:
            raise IndexError(f"frame {frame} is outside of the {self._num_frames} frames")
        start, end = self._around(frame)
        weight = 0.0 if start is end else (frame - start.frame) / (end.frame - start.frame)
        fps, settings = self.settings.fps, self.settings
        rows = _rows(start, end, weight, settings.guidance)
        return FramePlan(
            frame=frame,
            # Python divides whole numbers with a single rounding: exact, then to the nearest float.
            time_s=frame * fps.denominator / fps.numerator,
            from_key=start.frame,
            to_key=end.frame,
            weight=weight,
            guidance=settings.guidance,
            steps=settings.steps,
            strength=FROM_NOISE,
            seeds=(start.seed, end.seed),
            rows=tuple(row for row in rows if row.weight != 0),
        )

    def __iter__(self) -> Iterator[FramePlan]:
        return map(self.__getitem__, range(self._num_frames))

    @property
    def max_rows(self) -> int:
        """The most rows that a frame has.

        A segment of very few frames can have fewer, where a weight is 0 right on a frame.
        """
        return max(map(len, self._blends()))

    def prompts(self) -> tuple[str, ...]:
        """Returns the distinct texts that have to be encoded, in the order of their first use."""
        blends = chain.from_iterable(self._blends())
        return tuple(dict.fromkeys(text for blend in blends for text in (blend.start, blend.end)))

    def _blends(self) -> Iterator[list[PromptBlend]]:
        """Yields for each segment the prompts of the rows whose weight is not 0 all the way."""
        for start, end in self._segments():
            first, last = (_rows(start, end, t, self.settings.guidance) for t in (0.0, 1.0))
            pairs = zip(first, last, strict=True)
            yield [a.prompt for a, b in pairs if a.weight != 0 or b.weight != 0]

    def _around(self, frame: int) -> tuple[_Key, _Key]:
        after = bisect_right(self._keys, frame, key=attrgetter("frame"))
        start = self._keys[max(after - 1, 0)]
        held = start.frame >= frame or after == len(self._keys)
        return start, start if held else self._keys[after]

    def _segments(self) -> Iterator[tuple[_Key, _Key]]:
        """Yields the pairs that `_around` gives for the frames, each once."""
        yield self._keys[0], self._keys[0]
        for start, end in pairwise(self._keys):
            if start.frame + 1 < min(end.frame, self._num_frames):
                yield start, end
            if end.frame < self._num_frames:
                yield end, end


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


def _finalise(state: int) -> int:
    state &= 2**64 - 1
    state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & 2**64 - 1
    state = (state ^ state >> 27) * 0x94D049BB133111EB & 2**64 - 1
    return state ^ state >> 31


@dataclass(frozen=True, slots=True)
class _Key:
    """A key frame with the job's defaults, and part weights divided by the number of parts."""

    frame: int
    seed: int
    negative: str
    parts: tuple[Part, ...]
    mean: float


def _resolve(key_frame: KeyFrame, settings: RenderSettings) -> _Key:
    frame, parts = key_frame.frame, key_frame.parts
    shares = tuple(Part(part.text, part.weight / len(parts)) for part in parts)
    mean = math.fsum(share.weight for share in shares)
    negative = settings.negative if key_frame.negative is None else key_frame.negative
    seed = derive_seed(settings.seed, frame) if key_frame.seed is None else key_frame.seed
    return _Key(frame, seed, negative, shares, mean)


def _check_ascending(key_frames: Sequence[KeyFrame]) -> None:
    if not key_frames:
        raise SettingsError("no key frame: expected one or more, such as '0: a corgi'")
    for before, after in pairwise(key_frames):
        if before.frame >= after.frame:
            frames = f"{before.frame} and then {after.frame}"
            raise SettingsError(f"key frames {frames}: expected ascending ones, each once")


def _check_sums(start: _Key, end: _Key) -> None:
    if min(start.mean, end.mean) <= 0 <= max(start.mean, end.mean):
        raise SettingsError(
            f"weights from key frame {start.frame} to key frame {end.frame} pass through sum 0: "
            "expected sums of one sign at guidance 1 or below; change a weight or the guidance"
        )


def _rows(start: _Key, end: _Key, weight: float, guidance: float) -> list[ConditionRow]:
    """Returns all rows, the negative one first, with those whose weight is 0."""
    blends = [
        (PromptBlend(a.text, b.text), _lerp(a.weight, b.weight, weight))
        for a, b in zip_longest(start.parts, end.parts, fillvalue=_PADDING)
    ]
    mean = _lerp(start.mean, end.mean, weight)
    if guidance <= 1:
        return [ConditionRow(prompt, share / mean) for prompt, share in blends]
    negative = ConditionRow(PromptBlend(start.negative, end.negative), 1 - guidance * mean)
    return [negative, *(ConditionRow(prompt, guidance * share) for prompt, share in blends)]


def _lerp(start: float, end: float, weight: float) -> float:
    return start + weight * (end - start)
