"""Keys to frame numbers: `12`, `2.5s`, `max_f/2`.

The parser gives every key of both forms to a `Clock`. The invariant: a key is a frame of a video
that can exist, found without rounding errors, or a `PromptError`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from reprlib import repr as quote
from typing import NoReturn

from giffusion.engine.errors import nearest
from giffusion.engine.prompts.page import AFFIXES, Passage
from giffusion.engine.schedules.expressions import FUNCTIONS, ExpressionError, parse_expression
from giffusion.engine.settings import MAX_FRAMES

MAX_KEY_LENGTH = 100
VARIABLES = ("max_f", "fps", "s")
_LAST = MAX_FRAMES - 1
_FORMS = f"expected 0 to {_LAST} in digits, a time such as '2.5s', or 'max_f/2'"
_TIME = re.compile(r"([0-9]++(?:\.[0-9]*+)?|\.[0-9]++)\s*+s")
# Numbers that are no frames, such as `-5`, `1.5` and `1,000`: no arithmetic that has to be done.
_NUMBER_LIKE = re.compile(r"[-+\u2212]?[\d_.,]*+(?:[eE][-+]?\d*+)?\s*+[sS]?")


@dataclass(frozen=True, slots=True)
class Clock:
    """What keys are measured by.

    Args:
        fps: frames a second, exact.
        num_frames: number of frames, or None where it is not known.
        seed: of the job, which expressions know as `s`, or None where it is not known.
    """

    fps: Fraction
    num_frames: int | None
    seed: int | None

    def frame(self, key: Passage) -> int:
        """Returns the number of the frame that a key means, rounded half up.

        Raises:
            PromptError: it means none.
        """
        text = key.text
        frame = whole(text, _LAST)
        if frame is not None:
            return frame
        if len(text) > MAX_KEY_LENGTH:
            _fail(key, f"expected at most {MAX_KEY_LENGTH} characters")
        if time := _TIME.fullmatch(text):
            exact = Fraction(time[1]) * self.fps
        elif _NUMBER_LIKE.fullmatch(text):
            _fail(key, _FORMS)
        elif _is_unknown_word(text):
            _fail(key, f"unknown name {quote(text)}: {_nearest_word(text)}, or a number such as 60")
        else:
            exact = Fraction(self._value(key))
        frame = math.floor(exact + Fraction(1, 2))
        if not 0 <= frame <= _LAST:
            _fail(key, f"it is frame {_shown(frame)}, expected 0 to {_LAST}")
        return frame

    def _value(self, key: Passage) -> float:
        try:
            expression = parse_expression(key.text, VARIABLES)
            values = self._values()
            for name in sorted(expression.names - values.keys()):
                _fail(key, f"{name} needs the number of frames, give it with --frames")
            return expression.evaluate(values)
        except ExpressionError as error:
            _fail(key, str(error), error.offset)

    def _values(self) -> dict[str, float]:
        last = None if self.num_frames is None else self.num_frames - 1
        known = {"max_f": last, "fps": self.fps, "s": self.seed}
        return {name: float(value) for name, value in known.items() if value is not None}


def whole(text: str, limit: int) -> int | None:
    """Reads a number in digits from 0 to a limit below 10^19; returns None for anything else."""
    # Nineteen digits hold every limit; Python refuses to convert thousands of them.
    match = re.fullmatch("0*+([0-9]{1,19})|0++", text)
    number = int(match[1] or 0) if match else None
    return number if number is not None and number <= limit else None


def _nearest_word(text: str) -> str:
    """Says which words can be a key, the nearest first."""
    return nearest(text, (*AFFIXES, "max_f", "fps"))


def _is_unknown_word(text: str) -> bool:
    return text.isidentifier() and text not in (*VARIABLES, *FUNCTIONS, "pi")


def _shown(frame: int) -> str:
    return str(frame) if abs(frame) < 10**12 else f"{float(frame):.3g}"


def _fail(key: Passage, reason: str, offset: int = 0) -> NoReturn:
    key.fail(offset, f"{quote(key.text)} begins no key frame: {reason}")
