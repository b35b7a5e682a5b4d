"""What the model can draw: pictures and the words for them, from `vocabulary.txt`.

`corpus` draws scenes from it and `evaluate` asks for what it names. The invariant: a phrase that
is held out stands in no caption of the training.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from giffusion.engine.errors import InputError

VOCABULARY = Path(__file__).with_name("vocabulary.txt")


@dataclass(frozen=True, slots=True)
class Word:
    """A picture and what it is called.

    Attributes:
        code: code points of the emoji in hexadecimal, joined by `-`, without variation selectors.
        kind: the section of the file, such as `animal`.
        names: what captions call it, the usual one first.
        held_out: what only the evaluation calls it.
        weight: how often it is drawn, 1 for most.
    """

    code: str
    kind: str
    names: tuple[str, ...]
    held_out: tuple[str, ...] = ()
    weight: float = 1.0

    @property
    def name(self) -> str:
        return self.names[0].lstrip("+")


def read_vocabulary(path: Path = VOCABULARY) -> tuple[Word, ...]:
    """Reads the words of a vocabulary file, in its order.

    A line is `code[*weight] name; name; … ~ held out; …`; `[kind]` begins a section and `#` a
    comment. A name that takes no article begins with `+`.

    Raises:
        InputError: a line does not follow the form, or a code stands twice.
    """
    words = tuple(_read(path))
    seen: dict[str, str] = {}
    for word in words:
        if word.code in seen:
            raise InputError(
                f"{path}: picture {word.code} is both {seen[word.code]!r} and {word.name!r}: "
                "expected one line a picture, join the names"
            )
        seen[word.code] = word.name
    return words


def _read(path: Path) -> Iterator[Word]:
    kind = ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        text = line.split("#")[0].strip()
        if text.startswith("["):
            kind = text.strip("[]")
        elif text:
            yield _word(text, kind, f"{path}:{number}")


def _word(text: str, kind: str, where: str) -> Word:
    head, _, rest = text.partition(" ")
    code, _, weight = head.partition("*")
    names, _, held_out = rest.partition("~")
    try:
        word = Word(code.lower(), kind, _split(names), _split(held_out), float(weight or 1))
    except ValueError:
        raise InputError(f"{where}: weight {weight!r}: expected a number") from None
    if not word.names or not kind:
        raise InputError(f"{where}: got {text!r}: expected a code and a name in a [section]")
    return word


def _split(text: str) -> tuple[str, ...]:
    return tuple(name for part in text.split(";") if (name := part.strip()))
