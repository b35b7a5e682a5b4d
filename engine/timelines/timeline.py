"""Key frames and settings to the plan of every frame.

Conditioning, the scheduler and `giffusion plan` read it. The invariant: a frame's plan depends on
the two key frames around it and on the settings, and its prompts on a key frame on that one alone.
Nothing is stored per frame, and nothing here imports NumPy: planning has to start fast.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import chain, pairwise
from operator import attrgetter

from giffusion.engine.audio.curve import EnergyCurve
from giffusion.engine.errors import SettingsError
from giffusion.engine.prompts import KeyFrame, parse_prompts
from giffusion.engine.schedules.curves import Curve, Series
from giffusion.engine.schedules.easing import parse_interpolation
from giffusion.engine.settings import FROM_NOISE, MOTION, SCHEDULES, RenderSettings
from giffusion.engine.timelines.keys import (
    Key,
    check_sums,
    condition_rows,
    early_seed,
    part_blends,
    resolve_keys,
)
from giffusion.engine.timelines.plans import FramePlan, PromptBlend


class Timeline:
    """The plans of all frames: `len(timeline)`, `timeline[frame]`, `for plan in timeline`.

    A first key frame above 0 holds from frame 0; the last one holds to the end, or leads back to
    the first where the sequence loops. The one before a cut holds until there.

    Args:
        key_frames: one or more, ascending, as `parse_prompts` returns them.
        settings: `num_frames` None ends the sequence at the last key frame.
        model_guides: whether the model takes the guidance scale itself, as LCM does, so that frames
            have no negative condition.
        energy: the loudness of the settings' sound on every frame; None where none follows it.

    Raises:
        SettingsError: no key frame, key frames that do not ascend, settings that contradict them, a
            schedule without a usable value on some frame, or weights that cannot be normalised to
            sum 1 on some frame.
    """

    def __init__(
        self,
        key_frames: Sequence[KeyFrame],
        settings: RenderSettings,
        *,
        model_guides: bool = False,
        energy: EnergyCurve | None = None,
    ) -> None:
        interpolation = parse_interpolation(settings.interpolation, settings.interpolation_args)
        self.key_frames = tuple(key_frames)
        self.settings = settings
        self.model_guides = model_guides
        if energy is None and settings.follows_sound:
            raise SettingsError(
                "the timeline does not know how loud the sound is: expected `energy`, as "
                "`plan_timeline` measures it"
            )
        self._energy = energy
        # With a schedule of seeds the key frames' own are not used.
        seed = settings.seed if isinstance(settings.seed, int) else 0
        self._keys, self._num_frames = resolve_keys(
            key_frames, settings, seed, interpolation.weight
        )
        values: dict[str, float | Fraction] = {"max_f": self._num_frames - 1, "fps": settings.fps}
        by_frame = isinstance(settings.seed, str)
        series: dict[str, Series] = {} if energy is None else {"audio": energy.at}
        seeds = settings.schedule("seed").bind(values, series=series) if by_frame else None
        self._seeds = seeds
        self.seed = seed if self._seeds is None else math.floor(self._seeds.at(0))
        """Seed of the job, which the noise of ancestral steps is keyed by."""
        values["s"] = self.seed
        scheduled = [name for name in SCHEDULES if name != "seed"]
        self._curves = {
            name: settings.schedule(name).bind(values, series=series) for name in scheduled
        }
        bent = interpolation.schedule
        self._bend = None if bent is None else bent.bind(values, series=series)
        for curve in (*self._curves.values(), self._seeds, self._bend):
            # The guidance is asked for every value by the check of weights.
            if curve is not None and curve.name != "guidance":
                self._check_values(curve)
        self._is_guided = self._check_weights(self._curves["guidance"])
        cuts = (key.frame for key in self._keys if key.is_cut and key.frame < self._num_frames)
        self._starts = sorted({0, *cuts})

    @classmethod
    def from_text(
        cls,
        text: str,
        settings: RenderSettings,
        source: str = "<prompts>",
        energy: EnergyCurve | None = None,
    ) -> Timeline:
        """Reads key-frame text and plans it.

        Args:
            text: in either form of `giffusion.engine.prompts`.
            settings: how it is rendered.
            source: name of the text in messages.
            energy: as above.

        Raises:
            PromptError: the text does not follow the grammar.
            SettingsError: as above.
        """
        key_frames = parse_prompts(
            text,
            source,
            fps=settings.fps,
            num_frames=settings.num_frames,
            seed=early_seed(settings),
            head=settings.head,
            tail=settings.tail,
        )
        return cls(key_frames, settings, energy=energy)

    def for_model(self, *, model_guides: bool) -> Timeline:
        """Returns the same job for a model that takes the guidance scale itself, or does not.

        Raises:
            SettingsError: its weights cannot be normalised there.
        """
        if model_guides == self.model_guides:
            return self
        return Timeline(
            self.key_frames, self.settings, model_guides=model_guides, energy=self._energy
        )

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
        weight = self._weight(frame, start, end)
        fps, curves = self.settings.fps, self._curves
        guidance = curves["guidance"].at(frame)
        rows = condition_rows(start, end, weight, 1.0 if self.model_guides else guidance)
        seeds, seed_weight = self._noise(frame, start, end, weight)
        follows = frame - 1 if self._follows(frame) else None
        motion = {name: curves[name].at(frame) for name in MOTION if follows is not None}
        return FramePlan(
            frame=frame,
            # Python divides whole numbers with a single rounding: exact, then to the nearest float.
            time_s=frame * fps.denominator / fps.numerator,
            from_key=start.frame,
            to_key=end.frame,
            weight=weight,
            guidance=guidance,
            steps=int(curves["steps"].at(frame)),
            strength=self._strength(frame),
            noise=curves["noise"].at(frame),
            seeds=seeds,
            seed_weight=seed_weight,
            rows=tuple([row for row in rows if row.weight != 0]),
            control_scale=curves["control_scale"].at(frame),
            follows=follows,
            **motion,
        )

    def __iter__(self) -> Iterator[FramePlan]:
        return map(self.__getitem__, range(self._num_frames))

    @property
    def max_rows(self) -> int:
        """The most rows that a frame has.

        Frames can have fewer, where a weight is 0 right on each of them.
        """
        return max(map(len, self._blends()))

    @property
    def chains(self) -> list[range]:
        """The frames that follow from each other, for a job that has such; they end at cuts.

        Chains share nothing, so they can be rendered side by side.
        """
        if not self.settings.is_chained:
            return []
        return [range(*ends) for ends in pairwise([*self._starts, self._num_frames])]

    def walks(self) -> Iterator[tuple[int, int, float]]:
        """Yields (frame, steps, strength) for every frame on which they may have changed."""
        steps, strength = self._curves["steps"], self._curves["strength"]
        constant = steps.constant is not None and strength.constant is not None
        # A frame that follows from another may differ from those that do not.
        following = next((chain.start + 1 for chain in self.chains if len(chain) > 1), 0)
        for frame in sorted({0, following}) if constant else range(self._num_frames):
            yield frame, int(steps.at(frame)), self._strength(frame)

    def prompts(self) -> tuple[str, ...]:
        """Returns the distinct texts that have to be encoded, in the order of their first use."""
        blends = chain.from_iterable(self._blends())
        return tuple(dict.fromkeys(text for blend in blends for text in (blend.start, blend.end)))

    def _blends(self) -> Iterator[list[PromptBlend]]:
        """Yields for each segment the prompts of the rows whose weight is not 0 all the way."""
        guidance = self._curves["guidance"].constant
        for start, end in self._segments():
            blends = [blend for blend, first, last in part_blends(start, end) if first or last]
            # Where guidance changes it is 0 on single frames at most.
            unused = guidance is not None and 1 == guidance * start.mean == guidance * end.mean
            if self._is_guided and not unused:
                blends.insert(0, PromptBlend(start.negative, end.negative))
            yield blends

    def _follows(self, frame: int) -> bool:
        """Returns whether a frame is made from the one before it."""
        return (
            self.settings.is_chained
            and self._starts[bisect_right(self._starts, frame) - 1] != frame
        )

    def _strength(self, frame: int) -> float:
        """Returns a frame's strength; one that has nothing to start from starts from noise."""
        is_bare = self.settings.is_chained and not self.settings.has_init
        if is_bare and not self._follows(frame):
            return FROM_NOISE
        return self._curves["strength"].at(frame)

    def _weight(self, frame: int, start: Key, end: Key) -> float:
        if start is end:
            return 0.0
        x = (frame - start.frame) / (end.frame - start.frame)
        if start.weight is not None:
            return start.weight(x)
        if x <= start.hold:
            return 0.0
        if self._bend is not None:
            return self._bend.at(frame)
        assert self._energy is not None, "the settings have a sound where interpolation follows it"
        held = math.floor(start.hold * (end.frame - start.frame))
        return self._energy.weight(frame, start.frame + held, end.frame)

    def _noise(
        self, frame: int, start: Key, end: Key, weight: float
    ) -> tuple[tuple[int, int], float]:
        if self._seeds is None:
            return (start.seed, end.seed), weight
        seed = self._seeds.at(frame)
        below = math.floor(seed)
        return (below, math.ceil(seed)), seed - below

    def _around(self, frame: int) -> tuple[Key, Key]:
        after = bisect_right(self._keys, frame, key=attrgetter("frame"))
        start = self._keys[max(after - 1, 0)]
        held = start.frame >= frame or after == len(self._keys) or self._keys[after].is_cut
        return start, start if held else self._keys[after]

    def _segments(self) -> Iterator[tuple[Key, Key]]:
        """Yields the pairs that `_around` gives for the frames, each once."""
        yield self._keys[0], self._keys[0]
        for start, end in pairwise(self._keys):
            if start.frame + 1 < min(end.frame, self._num_frames) and not end.is_cut:
                yield start, end
            if end.frame < self._num_frames:
                yield end, end

    def _check_values(self, curve: Curve) -> None:
        """Asks a curve for every value, since it refuses what is out of its limits."""
        for frame in range(self._num_frames if curve.constant is None else 0):
            curve.at(frame)

    def _check_weights(self, guidance: Curve) -> bool:
        """Checks that weights can be normalised where they have to; says if any frame is guided."""
        constant = 1.0 if self.model_guides else guidance.constant
        if constant is not None:
            for start, end in self._segments() if constant <= 1 else ():
                check_sums(start, end)
            return constant > 1
        is_guided = False
        for frame in range(self._num_frames):
            if guidance.at(frame) > 1:
                is_guided = True
            else:
                check_sums(*self._around(frame))
        return is_guided
