"""Formulas as closures: what `expressions.py` makes of the text that users write.

The invariant: an `Expression` gives a finite number or raises an `ExpressionError`, in time that is
proportional to its length. All numbers are floats, and what no variable decides is computed once.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from reprlib import repr as quote
from typing import NoReturn

from giffusion.engine.errors import InputError

Values = Mapping[str, float]
Evaluate = Callable[[Values], float]
Function = Callable[..., float]

FUNCTIONS: dict[str, Function] = {
    "sin": math.sin,
    "cos": math.cos,
    "tan": math.tan,
    "abs": abs,
    "min": min,
    "max": max,
    "floor": lambda x: float(math.floor(x)),
    "ceil": lambda x: float(math.ceil(x)),
    "sqrt": math.sqrt,
    "exp": math.exp,
    "log": math.log,
}
SEVERAL = ("min", "max")
"""The functions of one operand or more; the others take exactly one."""
SUMS: dict[str, Function] = {"+": operator.add, "-": operator.sub}
PRODUCTS: dict[str, Function] = {"*": operator.mul, "/": operator.truediv, "%": operator.mod}
# Not `**`, which takes a negative base to complex numbers.
POWER: Function = math.pow
NEGATIVE: Function = operator.neg


class ExpressionError(InputError):
    """Text that is no expression, or an expression without a value.

    Args:
        message: what is wrong, what was expected, what to do.
        offset: where in the text, in characters from 0.
    """

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression.

    Args:
        text: what was written.
        offset: where it began in the text that it was read from.
        names: the variables that it uses.
    """

    text: str
    offset: int
    names: frozenset[str]
    _evaluate: Evaluate = field(repr=False, compare=False)

    def evaluate(self, values: Values) -> float:
        """Computes the value.

        Args:
            values: at least the variables in `names`.

        Raises:
            ExpressionError: there is none, such as for `1/0` or `sqrt(-1)`.
        """
        try:
            value = self._evaluate(values)
        except ZeroDivisionError:
            self._fail("division by zero")
        except OverflowError:
            self._fail("too large")
        except ValueError:
            self._fail("undefined")
        if not math.isfinite(value):
            self._fail("undefined" if math.isnan(value) else "too large")
        return value

    def _fail(self, reason: str) -> NoReturn:
        message = f"{quote(self.text)} has no value ({reason}): expected a finite number"
        raise ExpressionError(message, self.offset)


@dataclass(frozen=True, slots=True)
class Operand:
    """A part of an expression.

    Args:
        evaluate: computes it.
        constant: its value where no variable decides it, else None.
    """

    evaluate: Evaluate
    constant: float | None = None


def constant(value: float) -> Operand:
    """Returns the operand that is a number."""
    return Operand(lambda values: value, value)


def variable(name: str) -> Operand:
    """Returns the operand that looks its value up."""
    return Operand(operator.itemgetter(name))


def applied(function: Function, operands: Sequence[Operand]) -> Operand:
    """Returns a function of operands, computed here and now where all of them are constant."""
    if len(operands) == 1 and function in (min, max):
        return operands[0]
    evaluate = _composed(function, operands)
    if any(operand.constant is None for operand in operands):
        return Operand(evaluate)
    try:
        value = evaluate({})
    except (ArithmeticError, ValueError):
        # Without a value: the whole expression says so, by its text, when it is evaluated.
        return Operand(evaluate)
    return constant(value)


def folded(first: Operand, rest: Sequence[tuple[Function, Operand]]) -> Operand:
    """Returns `first`, then each function of what there is so far and the next operand.

    A loop, not nested closures, so that a long sum needs no deep stack.
    """
    done = 0
    for function, operand in rest:
        if first.constant is None or operand.constant is None:
            break
        first = applied(function, (first, operand))
        done += 1
    if len(rest) - done <= 1:
        return applied(rest[done][0], (first, rest[done][1])) if done < len(rest) else first
    begin, steps = first.evaluate, [(function, step.evaluate) for function, step in rest[done:]]

    def fold(values: Values) -> float:
        total = begin(values)
        for function, evaluate in steps:
            total = function(total, evaluate(values))
        return total

    return Operand(fold)


def _composed(function: Function, operands: Sequence[Operand]) -> Evaluate:
    # Calls are what evaluation costs: one less for each constant of the usual two operands.
    if len(operands) == 1:
        only = operands[0].evaluate
        return lambda values: function(only(values))
    if len(operands) == 2:
        first, second = (operand.evaluate for operand in operands)
        left, right = (operand.constant for operand in operands)
        if right is not None:
            return lambda values: function(first(values), right)
        if left is not None:
            return lambda values: function(left, second(values))
        return lambda values: function(first(values), second(values))
    evaluates = [operand.evaluate for operand in operands]
    return lambda values: function(*[evaluate(values) for evaluate in evaluates])
