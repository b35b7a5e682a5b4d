"""Arithmetic that users write, such as `4 + 2*sin(t/5)`: parsed to closures, never evaluated.

`curves.py` reads schedules with it and `prompts/` reads the keys of key frames. The invariant: any
text either gives an expression or raises an `ExpressionError` that says where, in linear time.

    sum      = product (("+" | "-") product)*
    product  = unary (("*" | "/" | "%") unary)*
    unary    = ("+" | "-") unary | power
    power    = atom ["**" unary]
    atom     = NUMBER | NAME | FUNCTION "(" sum ("," sum)* ")" | "(" sum ")"
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from fractions import Fraction
from reprlib import repr as quote
from typing import NamedTuple, NoReturn

from giffusion.engine.errors import nearest
from giffusion.engine.schedules.arithmetic import (
    FUNCTIONS,
    NEGATIVE,
    POWER,
    PRODUCTS,
    SEVERAL,
    SUMS,
    Evaluate,
    Expression,
    ExpressionError,
    Function,
    Operand,
    Values,
    applied,
    constant,
    folded,
    variable,
)

__all__ = [
    "FUNCTIONS",
    "MAX_DEPTH",
    "MAX_EXPRESSION_LENGTH",
    "Evaluate",
    "Expression",
    "ExpressionError",
    "ExpressionReader",
    "Token",
    "Values",
    "parse_expression",
]

MAX_EXPRESSION_LENGTH = 10_000
MAX_DEPTH = 50
"""Brackets, signs and powers inside one another; Python's own stack ends at some thousand."""

_CONSTANTS = {"pi": math.pi}
_TOKEN = re.compile(
    r"(?P<space>[^\S\n]+)|(?P<line>\n)"
    r"|(?P<number>(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][-+]?[0-9]++)?)"
    r"|(?P<name>[A-Za-z_][A-Za-z_0-9]*+)|(?P<symbol>\*\*|.)",
)
# Exact as a fraction without becoming a number of a million digits.
_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{0,9})?|\.[0-9]{1,9}")
_OPERATOR_EXPECTED = "expected an operator such as + or *"


class Token(NamedTuple):
    """A piece of text: its kind, the characters, and where they stand."""

    kind: str
    text: str
    offset: int


def parse_expression(text: str, variables: Collection[str]) -> Expression:
    """Reads an expression that is the whole of a text.

    Args:
        text: the expression.
        variables: names that it may use, besides `pi` and `FUNCTIONS`.

    Raises:
        ExpressionError: the text is no expression.
    """
    reader = ExpressionReader(text, variables)
    expression = reader.expression()
    reader.skip_lines()
    if reader.token.kind != "end":
        reader.fail_here(_OPERATOR_EXPECTED)
    return expression


class ExpressionReader:
    """Reads expressions and the marks between them from one text, from its start.

    Args:
        text: what to read.
        variables: names that expressions may use.
        max_length: the most characters of the text; an expression in it has its own limit.

    Raises:
        ExpressionError: the text is too long.
    """

    def __init__(
        self, text: str, variables: Collection[str], max_length: int = MAX_EXPRESSION_LENGTH
    ) -> None:
        _check_length(text, max_length, 0)
        matches = _TOKEN.finditer(text)
        tokens = (Token(m.lastgroup or "", m[0], m.start()) for m in matches)
        self._tokens = [token for token in tokens if token.kind != "space"]
        self._tokens.append(Token("end", "", len(text)))
        self._text = text
        self._variables = variables
        self._next = 0
        self._depth = 0
        self._brackets = 0
        self._names: set[str] = set()

    @property
    def token(self) -> Token:
        """What comes next; inside brackets a line break means nothing."""
        if self._brackets:
            self.skip_lines()
        return self._tokens[self._next]

    def expression(self) -> Expression:
        """Reads an expression; outside of brackets it ends with its line.

        Raises:
            ExpressionError: what follows is no expression.
        """
        self.skip_lines()
        begin = self.token.offset
        self._names = set()
        evaluate = self._sum().evaluate
        last = self._tokens[self._next - 1]
        text = self._text[begin : last.offset + len(last.text)]
        _check_length(text, MAX_EXPRESSION_LENGTH, begin)
        return Expression(text, begin, frozenset(self._names), evaluate)

    def time(self) -> Fraction | None:
        """Passes a time such as `2.5s` and returns its seconds, if that is what comes next.

        Raises:
            ExpressionError: there are more digits than a time needs, or an exponent.
        """
        self.skip_lines()
        number = self._tokens[self._next]
        if number.kind != "number":
            return None
        unit = self._tokens[self._next + 1]
        if unit != ("name", "s", number.offset + len(number.text)):
            return None
        if _SECONDS.fullmatch(number.text) is None:
            message = f"{quote(number.text + unit.text)} is not usable as a time"
            raise ExpressionError(f"{message}: expected seconds such as 2.5s", number.offset)
        self._next += 2
        return Fraction(number.text)

    def take(self, text: str) -> bool:
        """Passes a mark if it is what comes next; returns whether it was."""
        if self.token.text != text or self.token.kind == "end":
            return False
        self._next += 1
        return True

    def skip_lines(self) -> bool:
        """Passes line breaks; returns whether there were any."""
        before = self._next
        while self._tokens[self._next].kind == "line":
            self._next += 1
        return self._next > before

    def fail_here(self, expected: str) -> NoReturn:
        """Refuses what comes next.

        Raises:
            ExpressionError: always.
        """
        kind, text, offset = self.token
        if text == "^":
            raise ExpressionError("'^' is no operator: write '**' for the power", offset)
        ends = {"end": "the text ends here", "line": "the line ends here"}
        raise ExpressionError(f"{ends.get(kind, f'unexpected {quote(text)}')}: {expected}", offset)

    def _sum(self) -> Operand:
        return self._chain(self._product, SUMS)

    def _product(self) -> Operand:
        return self._chain(self._unary, PRODUCTS)

    def _chain(self, operand: Callable[[], Operand], operators: Mapping[str, Function]) -> Operand:
        first = operand()
        rest: list[tuple[Function, Operand]] = []
        while self.token.kind == "symbol" and self.token.text in operators:
            function = operators[self.token.text]
            self._next += 1
            rest.append((function, operand()))
        return folded(first, rest)

    def _unary(self) -> Operand:
        self._enter()
        if self.take("-"):
            value = applied(NEGATIVE, [self._unary()])
        elif self.take("+"):
            value = self._unary()
        else:
            value = self._power()
        self._depth -= 1
        return value

    def _power(self) -> Operand:
        base = self._atom()
        return applied(POWER, [base, self._unary()]) if self.take("**") else base

    def _atom(self) -> Operand:
        token = self.token
        if token.kind == "number":
            self._next += 1
            return _number(token)
        if token.kind == "name":
            self._next += 1
            return self._call(token) if token.text in FUNCTIONS else self._variable(token)
        if not self.take("("):
            self.fail_here("expected a number, a name or '('")
        return self._bracketed(token)[0]

    def _bracketed(self, opening: Token) -> list[Operand]:
        """Reads up to the closing bracket: one operand, or several with commas between."""
        self._brackets += 1
        operands = [self._sum()]
        while self.take(","):
            operands.append(self._sum())
        if len(operands) > 1 and opening.text not in SEVERAL:
            name = f"'{opening.text}'" if opening.kind == "name" else "a bracket"
            message = f"{name} takes one value, not {len(operands)}: remove the others"
            raise ExpressionError(message, opening.offset)
        if self.token.text != ")":
            self.fail_here("expected an operator or ')'")
        self._brackets -= 1
        self._next += 1
        return operands

    def _call(self, name: Token) -> Operand:
        if not self.take("("):
            self.fail_here(f"expected '(' after '{name.text}'")
        return applied(FUNCTIONS[name.text], self._bracketed(name))

    def _variable(self, token: Token) -> Operand:
        name = token.text
        if name in _CONSTANTS:
            return constant(_CONSTANTS[name])
        if name not in self._variables:
            known = (*self._variables, *FUNCTIONS, *_CONSTANTS)
            # A single letter is near to every short name, and so to none.
            wanted = name if len(name) > 1 or name.lower() in known else ""
            message = f"unknown name {quote(name)}: {nearest(wanted, known)}"
            raise ExpressionError(message, token.offset)
        self._names.add(name)
        return variable(name)

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            limit = f"expected brackets, signs and powers at most {MAX_DEPTH} deep"
            raise ExpressionError(f"the expression is too deep: {limit}", self.token.offset)


def _number(token: Token) -> Operand:
    value = float(token.text)
    if math.isinf(value):
        message = f"{quote(token.text)} is too large: expected a number below 1.8e308"
        raise ExpressionError(message, token.offset)
    return constant(value)


def _check_length(text: str, limit: int, offset: int) -> None:
    if len(text) > limit:
        message = f"{len(text)} characters are too many: expected at most {limit}"
        raise ExpressionError(message, offset)
