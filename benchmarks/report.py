"""Measured values as a median with its spread, ratios within a repeat, and tables of both."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from benchmarks.machine import result_path


@dataclass(frozen=True, slots=True)
class Summary:
    """The middle and the ends of what was measured.

    Args:
        median: of all repeats.
        low: the smallest.
        high: the largest.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Summary:
        """Summarises one or more values."""
        return cls(median(values), min(values), max(values))

    def to_dict(self) -> dict[str, float]:
        """Returns the summary as JSON takes it."""
        return {name: round(value, 5) for name, value in asdict(self).items()}

    def __str__(self) -> str:
        return f"{self.median:.4g} [{self.low:.4g}-{self.high:.4g}]"


def to_dicts(summaries: Mapping[str, Summary]) -> dict[str, dict[str, float]]:
    """Returns named summaries as JSON takes them."""
    return {name: summary.to_dict() for name, summary in summaries.items()}


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Summary:
    """Summarises the ratios of values that were measured in the same repeat."""
    return Summary.of([a / b for a, b in zip(ours, theirs, strict=True)])


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints rows under their header, the first column to the left."""
    texts = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    print(f"\n{title}")
    for first, *others in texts:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        print("  ".join([first.ljust(widths[0]), *cells]), flush=True)


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """Returns a parser with the options of every benchmark."""
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    made.add_argument("--quick", action="store_true", help="small settings, to see that it works")
    made.add_argument(
        "--output",
        type=Path,
        help=f"result file (default: results/{result_path(name).name}; none with --quick)",
    )
    return made


def output_path(name: str, options: argparse.Namespace) -> Path | None:
    """Returns where the result goes; that of a quick run is kept only where it was asked for."""
    if options.output is not None:
        return Path(options.output)
    return None if options.quick else result_path(name)
