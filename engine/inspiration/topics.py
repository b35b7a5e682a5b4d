"""What the user is interested in: `ocean, jazz` as topics.

`giffusion inspire` reads them, `walk.py` lets them sway its choices. The invariant: a topic is a
line of text without white space at its ends; whatever it has of the grammar's marks is text.
"""

from __future__ import annotations

import re
import unicodedata
from reprlib import repr as quote

from giffusion.engine.errors import SettingsError

MAX_TOPICS = 100
MAX_TOPIC_LENGTH = 200
_COMMA = re.compile(r"[,\uff0c\u3001]")
# Controls and halves of characters, which no file takes.
_NO_TEXT = ("Cc", "Cs")


def parse_topics(text: str) -> tuple[str, ...]:
    """Reads topics.

    Args:
        text: topics with commas between them; may be empty.

    Returns:
        Each once, in their order. Line breaks and other white space are blanks in them.

    Raises:
        SettingsError: there are too many, one is too long, or has a character that is no text.
    """
    found: dict[str, str] = {}
    for piece in _COMMA.split(text):
        topic = " ".join(piece.split())
        if topic:
            found.setdefault(topic.casefold(), _checked(topic))
        if len(found) > MAX_TOPICS:
            raise SettingsError(f"there are too many topics: expected at most {MAX_TOPICS}")
    return tuple(found.values())


def words(text: str) -> list[str]:
    """Returns a text's words, small and without the `s` of plurals, for comparison."""
    return [_singular(word) for word in re.findall(r"[^\W_]+", text.casefold())]


def _checked(topic: str) -> str:
    if len(topic) > MAX_TOPIC_LENGTH:
        raise SettingsError(
            f"topic {quote(topic)} is too long: expected at most {MAX_TOPIC_LENGTH} characters, "
            "with commas between topics"
        )
    for character in topic:
        if unicodedata.category(character) in _NO_TEXT:
            raise SettingsError(
                f"topic {quote(topic)} has {character!r}, which is no text: remove it"
            )
    return topic


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
