"""English for scenes: articles, plurals, and the sentences that captions are made of.

`corpus` fills them in with a generator of its own and `questions` with the held-out ones. The
invariant: `HELD_OUT` sentences and grounds stand in no caption of the training.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

SENTENCES: dict[str, float] = {
    "{}": 30,
    "a picture of {}": 14,
    "a photo of {}": 8,
    "picture of {}": 4,
    "photo of {}": 4,
    "an image of {}": 5,
    "image of {}": 2,
    "a drawing of {}": 3,
    "drawing of {}": 1,
    "an illustration of {}": 3,
    "a painting of {}": 3,
    "painting of {}": 1,
    "a photograph of {}": 2,
    "a 3d render of {}": 2,
    "a cartoon of {}": 2,
    "an emoji of {}": 2,
    "a close-up of {}": 1,
    "a rendering of {}": 1,
    "this is {}": 1,
    "there is {}": 1,
    "show me {}": 1,
    "i see {}": 1,
    "an oil painting of {}": 1,
    "a watercolor of {}": 1,
    "a picture with {}": 1,
    "a portrait of {}": 1,
}
"""How most captions begin, with how often."""

_COMPOSED = 0.2
"""Share of captions that begin with a sentence put together from the lists below."""

_OPENERS = ("", "", "", "", "show me", "this is", "here is", "i want", "give me", "make")
_QUALITIES = (
    *("", "", "", "", "beautiful", "simple", "detailed", "colorful", "colourful", "cute"),
    *("high quality", "professional", "realistic", "amazing", "funny", "clear", "good"),
)
_MEDIA = (
    *("picture", "photo", "image", "drawing", "illustration", "painting", "photograph", "cartoon"),
    *("render", "3d model", "portrait", "close-up", "rendering", "sticker", "clipart", "print"),
    *("poster", "view", "shot", "digital painting", "watercolor painting", "oil painting"),
)

HELD_OUT_SENTENCES = (
    "draw {}",
    "a sketch of {}",
    "an artwork showing {}",
    "we can see {}",
    "a depiction of {}",
    "a snapshot of {}",
    "look, {}",
    "an icon of {}",
    "one more picture of {}",
    "imagine {}",
)

ENDINGS = (
    ", highly detailed",
    ", digital art",
    ", 3d render",
    ", 4k",
    ", high quality",
    ", cartoon style",
    ", trending on artstation",
    ", concept art",
    ", sharp focus",
    ", emoji",
    ", masterpiece",
)
"""What captions of this kind end with and what changes nothing here."""

GROUND_PHRASES = (
    "on a {} background",
    "on {} background",
    "against a {} background",
    "with a {} background",
    "in front of a {} background",
    "on a {} wall",
    "in front of a {} wall",
    ", {} background",
)

HELD_OUT_GROUNDS = ("over a {} backdrop", "before a {} background", "and a {} background")

NEUTRAL = ("cute", "beautiful", "nice", "little", "pretty", "lovely", "single", "simple")
"""Adjectives that change nothing."""

ACTIONS = {
    "animal": (
        "running",
        "sitting",
        "standing",
        "sleeping",
        "looking at you",
        "playing",
        "walking",
    ),
    "person": ("standing", "smiling", "looking at you", "waving", "walking"),
    "vehicle": ("driving", "moving", "parked", "going fast"),
}
"""What things of a kind may be said to do, which changes nothing."""

SMALL = ("small", "tiny")
BIG = ("big", "large", "huge", "giant")


def sentence(draw: Random) -> str:
    """One of `SENTENCES`, by its weight, or a longer one such as `show me a simple print of {}`."""
    if draw.random() < _COMPOSED:
        medium = joined(draw.choice(_QUALITIES), draw.choice(_MEDIA))
        return joined(draw.choice(_OPENERS), with_article(medium), "of {}")
    return draw.choices(list(SENTENCES), list(SENTENCES.values()))[0]


def openings() -> set[str]:
    """All that `sentence` puts before a caption's nouns, each with the blank after it."""
    composed = {
        joined(opener, with_article(joined(quality, medium)), "of {}")
        for opener in _OPENERS
        for quality in _QUALITIES
        for medium in _MEDIA
    }
    return {text.removesuffix("{}") for text in composed | set(SENTENCES)} - {""}


def with_article(noun: str, article: str | None = None) -> str:
    """`a` or `an` before a noun, or nothing before one that takes none (`+` before it)."""
    if noun.startswith("+"):
        return noun[1:]
    return f"{article or _article(noun)} {noun}"


def _article(noun: str) -> str:
    vowel = noun[0].lower() in "aeiou"
    sounds_otherwise = noun.startswith(("uni", "ufo", "ukul", "euro", "one", "hour", "x-ray"))
    return "an" if vowel != sounds_otherwise else "a"


def described(adjectives: Sequence[str], noun: str) -> str:
    """Adjectives before a noun, which keeps its mark of taking no article."""
    mark, bare = ("+", noun[1:]) if noun.startswith("+") else ("", noun)
    return mark + " ".join([*adjectives, bare])


def plural(noun: str) -> str:
    """The regular plural of a noun, by its last word."""
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def joined(*parts: str) -> str:
    """Parts of a caption with single spaces, none before a comma, and the right articles."""
    text = " ".join(part for part in parts if part).replace(" ,", ",")
    return text.replace(" a orange", " an orange")
