"""Schedules: `0:(1.0), 30:(2.0)` to a number for each frame.

The settings hold a `Schedule` for whatever may change along the frames, and the timeline binds it
to a job. The meaning is Deforum's; `docs/schedules.md` states it with examples. The invariant: any
text gives a schedule or a `SettingsError` that says where, and a curve passes exactly through the
values at its keys. Nothing here imports NumPy: `giffusion plan` loads it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from operator import itemgetter
from typing import NoReturn, TypeAlias, TypeVar

from giffusion.engine.errors import SettingsError
from giffusion.engine.schedules.expressions import Expression, ExpressionError, Values
from giffusion.engine.schedules.limits import ANY_NUMBER, Limits, round_half_up
from giffusion.engine.schedules.schedule_text import Entry, place, read_entries

MAX_KEY = 10**9
"""Largest frame of a key; keys may lie beyond the last frame."""

SERIES = ("audio",)
"""What the schedules of a job know of each frame besides its number."""

Series: TypeAlias = Callable[[int], float]
"""A frame's number to a value."""
_ADVICE = {"max_f": "set the number of frames", "audio": "give a sound by --audio"}
_Key: TypeAlias = tuple[int, Expression]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Schedule:
    """A setting that may change along the frames, as `parse_schedule` makes it from text.

    Args:
        text: what was written.
        name: of the setting, for messages.
        limits: what its values have to keep to.
        series: names of further variables that change along the frames.
        constant: the value of a text without keys and variables, else None.
    """

    text: str
    name: str
    limits: Limits
    series: frozenset[str]
    constant: float | None
    _entries: tuple[Entry, ...] = field(repr=False, compare=False)

    @property
    def names(self) -> frozenset[str]:
        """The variables that its values depend on."""
        return frozenset().union(*(entry.value.names for entry in self._entries))

    def bind(
        self,
        values: Mapping[str, float | Fraction],
        num_frames: int | None = None,
        series: Mapping[str, Series] | None = None,
    ) -> Curve:
        """Returns the values along the frames of one job.

        Args:
            values: `s`, `max_f` and `fps`, as far as the text uses them or times as keys; those
                are exact where `fps` is, as a `Fraction`.
            num_frames: number of frames, from which `max_f` follows where `values` lacks it.
            series: what the schedule's further variables are, each from a frame's number.

        Raises:
            SettingsError: a key is negative or stands twice, or an expression has no value.
        """
        if self.constant is not None:
            return Curve(self.name, (0,), self.constant, self.limits, ())
        given = dict(values)
        if num_frames is not None:
            given.setdefault("max_f", num_frames - 1)
        return _Job(self, given, series or {}).curve()


@dataclass(frozen=True, slots=True)
class Curve:
    """The values of a schedule along the frames of a job.

    Args:
        name: of the setting, for messages.
        keys: frame numbers of the keys, ascending.
        constant: the value of all frames where they have the same, else None.
    """

    name: str
    keys: tuple[int, ...]
    constant: float | None
    _limits: Limits = field(repr=False)
    # What holds before the first key, and then from each key on.
    _pieces: tuple[Series, ...] = field(repr=False)

    def at(self, frame: int) -> float:
        """Returns the value at a frame.

        Raises:
            SettingsError: it is out of the schedule's limits, or there is none, as of `1/t` at 0.
        """
        if self.constant is not None:
            return self.constant
        value = self._pieces[bisect_right(self.keys, frame)](frame)
        return self._limits.check(value, self.name, frame)


def parse_schedule(
    text: str | float, name: str, limits: Limits = ANY_NUMBER, series: Collection[str] = ()
) -> Schedule:
    """Reads a schedule: keys and values, `0:(1), 30:(2)`, or one value for all frames.

    Args:
        text: the schedule, or a number.
        name: of the setting, for messages.
        limits: what its values have to keep to.
        series: variables besides `t` that change along the frames; `Schedule.bind` is given them.

    Raises:
        SettingsError: the text is no schedule, or a constant one is out of its limits.
    """
    text = text if isinstance(text, str) else _written(text, name, limits)
    try:
        entries = read_entries(text, series)
        constant = _constant(entries[0])
    except ExpressionError as error:
        _fail(name, text, error.offset, str(error))
    if constant is not None:
        constant = limits.check(constant, name)
    return Schedule(text, name, limits, frozenset(series), constant, entries)


def _written(number: float, name: str, limits: Limits) -> str:
    try:
        return repr(limits.check(float(number), name))
    except OverflowError as error:
        raise SettingsError(f"{name} is too large: expected a number below 1.8e308") from error


def _constant(entry: Entry) -> float | None:
    return entry.value.evaluate({}) if entry.key is None and not entry.value.names else None


def _fail(name: str, text: str, offset: int, message: str, where: str = "") -> NoReturn:
    raise SettingsError(f"{name} schedule, {place(text, offset)}{where}: {message}")


@dataclass(frozen=True, slots=True)
class _Job:
    """A schedule and what its variables stand for in one job: what a curve is made from."""

    schedule: Schedule
    given: Mapping[str, float | Fraction]
    series: Mapping[str, Series]

    def curve(self) -> Curve:
        keys, schedule = self._keys(), self.schedule
        pieces = (self._piece(keys[0], None), *map(self._piece, keys, [*keys[1:], None]))
        frames = tuple(frame for frame, _ in keys)
        return Curve(schedule.name, frames, self._constant(keys), schedule.limits, pieces)

    def _keys(self) -> list[_Key]:
        keys: dict[int, Expression] = {}
        for entry in self.schedule._entries:
            frame = self._frame(entry)
            if keys.setdefault(frame, entry.value) is not entry.value:
                self._fail(entry.offset, f"a second key at frame {frame}: remove one of the two")
        return sorted(keys.items(), key=itemgetter(0))

    def _frame(self, entry: Entry) -> int:
        if entry.key is None:
            return 0
        if isinstance(entry.key, Fraction):
            exact = entry.key * Fraction(self._known(self.given, "fps", entry.offset))
        else:
            exact = Fraction(self._evaluate(entry.key, self._fixed(entry.key)))
        frame = round_half_up(exact)
        if not 0 <= frame <= MAX_KEY:
            shown = frame if abs(frame) < 1e15 else f"{frame:.0e}"
            self._fail(entry.offset, f"a key at frame {shown}: expected one from 0 to {MAX_KEY}")
        return frame

    def _constant(self, keys: list[_Key]) -> float | None:
        if any(self._moves(value) for _, value in keys):
            return None
        values = {self._value(key) for key in keys}
        schedule = self.schedule
        return schedule.limits.check(values.pop(), schedule.name) if len(values) == 1 else None

    def _piece(self, key: _Key, after: _Key | None) -> Series:
        """Returns the values from one key to the next one, or before or after all keys."""
        if self._moves(key[1]):
            return self._moving(key[1])
        start = self._value(key)
        end = start if after is None else self._value(after)
        return (
            _hold(start) if after is None or start == end else _line(key[0], start, after[0], end)
        )

    def _value(self, key: _Key) -> float:
        frame, value = key
        return self._moving(value)(frame)

    def _moves(self, value: Expression) -> bool:
        return not value.names.isdisjoint(("t", *self.schedule.series))

    def _moving(self, value: Expression) -> Series:
        """Returns what an expression is at each frame."""
        used, fixed = self.schedule.series & value.names, self._fixed(value)
        series = [(name, self._known(self.series, name, value.offset)) for name in sorted(used)]

        def at(frame: int) -> float:
            values = {**fixed, "t": float(frame)}
            for name, function in series:
                values[name] = function(frame)
            return self._evaluate(value, values, frame)

        return at

    def _fixed(self, expression: Expression) -> dict[str, float]:
        names = expression.names.difference(("t", *self.schedule.series))
        offset = expression.offset
        return {name: float(self._known(self.given, name, offset)) for name in sorted(names)}

    def _evaluate(self, value: Expression, values: Values, frame: int | None = None) -> float:
        try:
            return value.evaluate(values)
        except ExpressionError as error:
            where = "" if frame is None else f", at frame {frame}"
            self._fail(error.offset, str(error), where)

    def _known(self, given: Mapping[str, _T], name: str, offset: int) -> _T:
        if name not in given:
            advice = _ADVICE.get(name, "expected a schedule without it")
            self._fail(offset, f"'{name}' is not known here: {advice}")
        return given[name]

    def _fail(self, offset: int, message: str, where: str = "") -> NoReturn:
        _fail(self.schedule.name, self.schedule.text, offset, message, where)


def _hold(value: float) -> Series:
    return lambda frame: value


def _line(first: int, start: float, last: int, end: float) -> Series:
    rise, length = end - start, last - first
    # This form stays within its two ends to the last bit, and so within limits that they keep to.
    return lambda frame: start + rise * ((frame - first) / length)
