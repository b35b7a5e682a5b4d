"""What one frame is rendered from, as plain numbers and texts.

`timeline.py` makes plans, conditioning and the scheduler read them, `giffusion plan` prints them.
The invariant: a plan is a value; nothing here knows key frames, models or the frames beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

_JSON_NAMES = {"from_key": "from", "to_key": "to", "seeds": "seed"}


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
        is_negative: whether it is what guidance steers away from.
    """

    prompt: PromptBlend
    weight: float
    is_negative: bool = False


@dataclass(frozen=True, slots=True)
class FramePlan:
    """Everything that decides what one frame looks like, besides the model and its numerics.

    Args:
        frame: number of the frame, from 0.
        time_s: when it is shown, in seconds.
        from_key: frame number of the key frame at or before it.
        to_key: frame number of the key frame after it; equal to `from_key` on a key frame, before
            the first and after the last. Where the sequence loops, the first key frame follows the
            last at the number of frames.
        weight: how far the frame is from `from_key` to `to_key`, in [0, 1].
        guidance: classifier-free guidance scale.
        steps: denoising steps.
        strength: share of the noise schedule that is walked, in (0, 1].
        noise: factor of the noise that the frame starts from.
        seeds: of the two noises that its own is blended from.
        seed_weight: how far it is from the first of them to the second, in [0, 1].
        rows: the conditions, the negative one first; none has the weight 0.
        control_scale: how far its map steers it; 0 for a frame that needs none.
        follows: number of the frame that it is made from, or None for one that starts anew.
        zoom: factor by which that frame is enlarged first; this and the next three are at rest for
            a frame that follows from none.
        angle: degrees by which it is turned.
        translate_x: pixels by which it is moved to the right.
        translate_y: pixels by which it is moved down.
    """

    frame: int
    time_s: float
    from_key: int
    to_key: int
    weight: float
    guidance: float
    steps: int
    strength: float
    noise: float
    seeds: tuple[int, int]
    seed_weight: float
    rows: tuple[ConditionRow, ...]
    control_scale: float = 0.0
    follows: int | None = None
    zoom: float = 1.0
    angle: float = 0.0
    translate_x: float = 0.0
    translate_y: float = 0.0

    def to_dict(self) -> dict[str, object]:
        """Returns the plan in the form that is written as JSON, one name for each field."""
        rows = [{"prompt": [r.prompt.start, r.prompt.end], "weight": r.weight} for r in self.rows]
        plan = {name: getattr(self, field) for field, name in _FIELDS}
        return plan | {"seed": list(self.seeds), "rows": rows}


_FIELDS = [(field.name, _JSON_NAMES.get(field.name, field.name)) for field in fields(FramePlan)]
