"""The names of the pictures of a sequence, such as `frames/%05d.png`.

Called by `folder.py`, which puts the folder in its place, and by `png.py`, which writes and reads
the pictures. Pure: text in, names out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from giffusion.engine.errors import OutputError

# As FFmpeg, Blender and others write it: %d, or %05d for at least five digits.
_NUMBER = re.compile(r"%(?:0([1-9][0-9]?))?d")
EXAMPLE = "%05d"


@dataclass(frozen=True, slots=True)
class Pattern:
    """Names that differ in one number.

    Args:
        prefix: what stands before the number.
        num_digits: digits that it has at least.
        suffix: what stands after it.
    """

    prefix: str
    num_digits: int
    suffix: str

    def name(self, index: int) -> str:
        """Returns the name of a picture, numbered from 0."""
        return f"{self.prefix}{index:0{self.num_digits}d}{self.suffix}"

    def index(self, name: str) -> int | None:
        """Returns the number of the picture that has a name, or None where none has it."""
        digits = name.removeprefix(self.prefix).removesuffix(self.suffix)
        if not (digits.isascii() and digits.isdecimal() and len(digits) < 20):
            return None
        return int(digits) if self.name(int(digits)) == name else None


def parse_pattern(path: Path) -> Pattern:
    """Reads the file name of a sequence.

    Raises:
        OutputError: it has no number, or several.
    """
    found = list(_NUMBER.finditer(path.name))
    if len(found) != 1:
        counted = "names one picture" if not found else "has more than one number"
        example = path.with_name(path.stem if not found else "frames") / f"{EXAMPLE}{path.suffix}"
        raise OutputError(f"{path} {counted}: expected a pattern, such as {example}")
    number = found[0]
    start, end = number.span()
    return Pattern(path.name[:start], int(number[1] or 1), path.name[end:])


def is_pattern(path: Path) -> bool:
    """Returns whether a file name is that of a sequence."""
    return len(_NUMBER.findall(path.name)) == 1
