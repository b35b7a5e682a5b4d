"""Seeded inputs in large numbers through every parser: nothing but a typed error may come out.

`scripts/fuzz [COUNT] [SEED]` runs it on all cores. Inputs are valid examples of the grammars,
mutated; an input depends on the seed and its number alone. It prints how many parsed and how many
were refused, and ends with 1 and the inputs where anything else happened.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from random import Random

from giffusion.engine.conditions.emphasis import MAX_EMPHASIS, EmphasisError, parse_emphasis
from giffusion.engine.errors import PromptError, SettingsError
from giffusion.engine.prompts import format_prompts, parse_prompts
from giffusion.engine.schedules.curves import parse_schedule
from giffusion.engine.schedules.expressions import ExpressionError, parse_expression

CHUNK = 5000
MAX_SHOWN = 10
VALUES = {"max_f": 99.0, "fps": 24.0, "s": 7.0}
REFUSALS = (PromptError, SettingsError, ExpressionError, EmphasisError)
MARKS = [
    *"(){}[]:,|\\\"'#.+-*/%^=_ \n\r\t0123456789aest",
    *("::", "--", "--neg ", "--seed ", "--hold ", "--ease ", "head: ", "tail: ", "\n1: ", "\r\n"),
    *("max_f", "fps", "sin(", "min(", "**", "1e9", "1e-9", ":1.3)", ":0.5]", "\\u00e9", "\\ud83d"),
    *(
        "\\(",
        "\\n",
        "\ufeff",
        "\ud800",
        "\u2028",
        "\u2212",
        "\uff1a",
        "\uff15",
        "é",
        "犬",
        "🐕",
        "\0",
    ),
]
EXAMPLES = {
    "lines": [
        "0: a corgi\n60: a lion",
        "# film\nhead: a photo of\ntail: , 8k\n0: a (red:1.3) | [fog]::-0.4 --neg b --seed 7",
        "max_f/2: a\n  and more\n2.5s: b --hold .3 --ease in-out\n(9+2)*3: c \\| d \\:: e \\--neg",
        "0: a::1.5 | b::2 | c\nmax_f - 1: ((d)) \\(e\\) \\\\\nfps*2: f",
    ],
    "json": [
        '{"0": "a --neg b", "max_f/2": "c"}',
        '{"head": "a photo of", "0": "a (b:1.2) | c::0.5",\n "2.5s": "d \\u00e9 \\\\(e\\\\)\\nf"}',
        '{"0": "\\ud83d\\ude00 \\"x\\" --seed 5 --hold 1 --ease in", "30": "(10)"}',
    ],
    "expressions": ["4 + 2*sin(t/5)", "max_f/2", "min(3, max(s, fps)) ** -2 % 7", "-(1 - .5e1)*pi"],
    "schedules": [
        "0:(1.0), 30:(2.0)",
        "0: 4+2*sin(t/5)\nmax_f/2: 3,\n 2.5s: (min(1, t))",
        "7",
        "max_f-1:(sqrt(t)), 0:(1/(t+1))",
    ],
    "emphasis": [
        "a (red:1.3) house, [fog]",
        "((a) [b (c:0.5)]) \\(d\\) \\\\",
        "(a, (b:2):0.5)[[c]]",
    ],
}


@dataclass(slots=True)
class Tally:
    """What happened to some inputs.

    Args:
        counts: by kind and outcome, `parsed` or `refused`.
        slowest: seconds of processor time, kind and text of the input that took longest.
        escapes: descriptions of what must not happen.
    """

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    slowest: tuple[float, str, str] = (0.0, "", "")
    escapes: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Adds what happened to others."""
        self.counts += other.counts
        self.slowest = max(self.slowest, other.slowest)
        self.escapes += other.escapes

    def total(self, outcome: str) -> int:
        """Returns the number of inputs with an outcome."""
        return sum(number for (_, name), number in self.counts.items() if name == outcome)


def mutate(random: Random, examples: list[str]) -> str:
    """Returns one of the examples after some changes, most often few."""
    text = random.choice(examples)
    for _ in range(min(int(random.expovariate(0.4)), 12)):
        text = random.choice(_CHANGES)(random, text, examples)[:4000]
    return text


def check(kind: str, text: str) -> bool:
    """Sends one input through its parser; returns whether it parsed.

    Raises:
        Exception: the parser raised something else than its own error, or broke a promise.
    """
    try:
        _CHECKS[kind](text)
    except REFUSALS as error:
        if len(str(error).splitlines()) != 1 or len(str(error)) > 1000:
            raise AssertionError(f"not one short line: {error}") from error
        return False
    return True


def run_chunk(seed: int, number: int, num_inputs: int) -> Tally:
    """Runs some inputs, which depend on the seed and on the number of the chunk."""
    random, tally = Random(f"{seed}/{number}"), Tally()
    for _ in range(num_inputs):
        kind = random.choice(list(EXAMPLES))
        text = mutate(random, EXAMPLES[kind])
        began = time.process_time()
        try:
            tally.counts[kind, "parsed" if check(kind, text) else "refused"] += 1
        except Exception as error:  # what this program looks for
            tally.escapes.append(f"{kind}: {text!r}: {type(error).__name__}: {error}")
        tally.slowest = max(tally.slowest, (time.process_time() - began, kind, text))
    return tally


def run(count: int, seed: int, on_progress: Callable[[int], None]) -> Tally:
    """Runs inputs on all cores.

    Args:
        count: number of inputs.
        seed: chooses them.
        on_progress: told how many are done.
    """
    sizes = [min(CHUNK, count - begin) for begin in range(0, count, CHUNK)]
    tally, done = Tally(), 0
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        parts = pool.map(run_chunk, [seed] * len(sizes), range(len(sizes)), sizes)
        for part, size in zip(parts, sizes, strict=True):
            tally.add(part)
            done += size
            on_progress(done)
    return tally


def report(tally: Tally, elapsed_s: float) -> Iterator[str]:
    """Yields the lines that say what happened."""
    parsed, refused, escaped = (*map(tally.total, ("parsed", "refused")), len(tally.escapes))
    count = parsed + refused + escaped
    yield f"{count:,} inputs in {elapsed_s:.1f} s, {count / elapsed_s:,.0f} a second"
    yield f"{parsed:,} parsed, {refused:,} refused in a line, {escaped:,} escaped"
    for kind in EXAMPLES:
        numbers = (tally.counts[kind, outcome] for outcome in ("parsed", "refused"))
        yield "  {:12} {:>9,} parsed, {:>9,} refused".format(kind, *numbers)
    slowest_s, kind, text = tally.slowest
    yield f"slowest: {slowest_s * 1e3:.1f} ms, {kind}, {text[:200]!r}"
    yield from (f"escape: {escape}" for escape in tally.escapes[:MAX_SHOWN])


def main() -> int:
    """Runs what the command line asks for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=1_000_000, help="number of inputs")
    parser.add_argument("seed", nargs="?", type=int, default=0, help="chooses the inputs")
    options = parser.parse_args()
    began = time.perf_counter()

    def show(done: int) -> None:
        speed = done / (time.perf_counter() - began)
        print(f"\r{done:,} of {options.count:,}, {speed:,.0f} a second ", end="", file=sys.stderr)

    tally = run(options.count, options.seed, show)
    print(file=sys.stderr)
    print("\n".join(report(tally, time.perf_counter() - began)))
    return 1 if tally.escapes else 0


def _insert(random: Random, text: str, _: list[str]) -> str:
    at = random.randrange(len(text) + 1)
    mark: str = random.choice(MARKS)
    return text[:at] + mark * _times(random) + text[at:]


def _replace(random: Random, text: str, _: list[str]) -> str:
    at = random.randrange(len(text) + 1)
    return text[:at] + chr(random.randrange(0x110000)) + text[at + 1 :]


def _delete(random: Random, text: str, _: list[str]) -> str:
    begin, end = _span(random, text)
    return text[:begin] + text[end:]


def _repeat(random: Random, text: str, _: list[str]) -> str:
    begin, end = _span(random, text)
    return text[:begin] + text[begin:end] * (1 + _times(random)) + text[end:]


def _splice(random: Random, text: str, examples: list[str]) -> str:
    other = random.choice(examples)
    begin, end = _span(random, other)
    at = random.randrange(len(text) + 1)
    return text[:at] + other[begin:end] + text[at:]


def _span(random: Random, text: str) -> tuple[int, int]:
    begin = random.randrange(len(text) + 1)
    return begin, min(begin + random.choice((1, 1, 2, 5, 20)), len(text))


def _times(random: Random) -> int:
    return random.choice((1, 1, 1, 1, 2, 3, 60))


def _check_prompts(text: str) -> None:
    key_frames = parse_prompts(text, fps=Fraction(30000, 1001), num_frames=100, seed=7)
    if parse_prompts(format_prompts(key_frames)) != key_frames:
        raise AssertionError(f"not the same after writing and reading: {key_frames}")


def _check_expression(text: str) -> None:
    parse_expression(text, ("t", *VALUES)).evaluate({"t": 3.0, **VALUES})


def _check_schedule(text: str) -> None:
    curve = parse_schedule(text, "guidance").bind(VALUES, 100)
    for frame in (0, 1, 50, 99):
        curve.at(frame)


def _check_emphasis(text: str) -> None:
    fragments = parse_emphasis(text)
    if not all(f.text and 0 <= f.weight <= MAX_EMPHASIS for f in fragments):
        raise AssertionError(f"fragments out of range: {fragments}")


_CHANGES = (_insert, _insert, _replace, _delete, _delete, _repeat, _splice)
_CHECKS: dict[str, Callable[[str], None]] = {
    "lines": _check_prompts,
    "json": _check_prompts,
    "expressions": _check_expression,
    "schedules": _check_schedule,
    "emphasis": _check_emphasis,
}

if __name__ == "__main__":
    sys.exit(main())
