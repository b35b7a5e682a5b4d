"""The training's scenes and captions, drawn from the vocabulary by a seed.

`prepare` calls `draw_corpus`. The mix is `MIX`; the second half of this module is one function a
kind of scene. The invariant: a caption says all that its scene does not leave to chance (what,
its colour if not its own, where, on what), so that words are what the model learns pictures by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from random import Random

from giffusion.models.training import captions as english
from giffusion.models.training.drafts import Draft, Layer, pack
from giffusion.models.training.palette import (
    COLOURS,
    GROUNDS,
    PLACES,
    RGB,
    SHADES,
    WEATHERS,
    WHITE,
    Ground,
    plain,
)
from giffusion.models.training.scenes import Scenes
from giffusion.models.training.vocabulary import Word

MIX = {"one": 50.0, "coloured": 17.0, "two": 19.0, "weather": 12.0, "several": 2.0}
"""Kinds of scene, with how many in a hundred."""

NEVER_TINTED = frozenset({"body", "face", "person", "weather", "scene"})
"""Kinds of word that no colour word is put before."""


class Painter:
    """Draws scenes of a vocabulary, one after another.

    Args:
        words: the vocabulary, whose order numbers the pictures.
        seed: of everything random.
    """

    def __init__(self, words: Sequence[Word], seed: int) -> None:
        self._draw = Random(seed)
        self._words = words
        self._weights = list(accumulate(word.weight for word in words))
        self._tinted = [word.kind not in NEVER_TINTED for word in words]
        self._whole = {name.lstrip("+") for word in words for name in word.names + word.held_out}
        self._by_code = {word.code: number for number, word in enumerate(words)}
        self._weathers = [weather for weather in WEATHERS if weather.code in self._by_code]
        self._kinds: dict[str, Callable[[], Draft]] = {
            "one": self._one,
            "coloured": self._coloured,
            "two": self._two,
            "weather": self._weather,
            "several": self._several,
        }

    def draft(self) -> Draft:
        """The next scene."""
        kind = self._draw.choices(list(MIX), list(MIX.values()))[0]
        return self._kinds[kind]()

    def _one(self) -> Draft:
        number = self._pick()
        noun, scale = self._noun(number), self._draw.uniform(0.80, 0.98)
        if self._draw.random() < 0.05:
            sizes, scale = self._draw.choice([(english.SMALL, 0.5), (english.BIG, 1.02)])
            noun = self._described(sizes, noun)
        elif self._draw.random() < 0.06:
            noun = self._described(english.NEUTRAL, noun)
        elif (kind := self._words[number].kind) in english.ACTIONS and self._draw.random() < 0.08:
            noun = f"{noun} {self._draw.choice(english.ACTIONS[kind])}"
        return self._alone(noun, self._layer(number, scale=scale), 0.45)

    def _coloured(self) -> Draft:
        number = self._pick(tinted=True)
        colour, noun = self._colour(number)
        blank = 0.0 if colour == "white" else 0.75
        return self._alone(noun, self._layer(number, tint=self._shade(colour)), blank, colour)

    def _alone(self, noun: str, layer: Layer, blank: float, avoid: str = "") -> Draft:
        """A thing by itself, on white without a word with the probability `blank`."""
        where, ground = self._ground(blank, avoid)
        return Draft(self._caption(self._article(noun), where), (layer,), ground)

    def _two(self) -> Draft:
        first, second = self._some(), self._some()
        above = self._draw.random() < 0.2
        phrase = self._draw.choice(_ABOVE if above else _BESIDE)
        text = phrase.format(english.with_article(first[0]), english.with_article(second[0]))
        where, ground = self._ground(0.6)
        ends = [(0.0, -0.48), (0.0, 0.48)] if above else [(-0.48, 0.0), (0.48, 0.0)]
        layers = tuple(
            self._layer(number, *end, scale=self._draw.uniform(0.47, 0.55), tint=tint, move=0.03)
            for (_, number, tint), end in zip((first, second), ends, strict=True)
        )
        return Draft(self._caption(text, where), layers, ground)

    def _several(self) -> Draft:
        number = self._pick()
        noun = self._draw.choice(self._words[number].names)
        if noun.startswith("+"):
            return self._one()
        many = english.plural(noun)
        text = self._draw.choice([f"two {many}", f"two {many}", many, f"a pair of {many}"])
        where, ground = self._ground(0.6)
        layers = tuple(
            self._layer(number, x, scale=self._draw.uniform(0.47, 0.55), move=0.03)
            for x in (-0.48, 0.48)
        )
        return Draft(self._caption(text, where), layers, ground)

    def _weather(self) -> Draft:
        if not self._weathers:
            return self._one()
        weather = self._draw.choice(self._weathers)
        number = self._by_code[weather.code]
        if self._draw.random() < 0.4:
            text = self._article(self._draw.choice(weather.nouns))
            layer = self._layer(number, scale=self._draw.uniform(0.75, 0.92), still=True)
            return Draft(self._caption(text, ""), (layer,), weather.ground)
        noun, thing, tint = self._some(0.35)
        if self._draw.random() < 0.7:
            text = f"{english.with_article(noun)} {self._draw.choice(weather.phrases)}"
        else:
            day = english.with_article(self._draw.choice(weather.nouns))
            text = f"{english.with_article(noun)} {self._draw.choice(_DURING)} {day}"
        sky = self._layer(number, 0, -0.5, scale=0.44, still=True, move=0.03)
        scale = self._draw.uniform(0.54, 0.6)
        below = self._layer(thing, 0, 0.38, scale=scale, tint=tint, move=0.03)
        return Draft(self._caption(text, ""), (sky, below), weather.ground)

    def _some(self, coloured: float = 0.2) -> tuple[str, int, RGB | None]:
        """A noun, its picture and its tint, sometimes with a colour word."""
        if self._draw.random() < coloured:
            number = self._pick(tinted=True)
            colour, noun = self._colour(number)
            return noun, number, self._shade(colour)
        number = self._pick()
        return self._noun(number), number, None

    def _pick(self, tinted: bool = False) -> int:
        everything = range(len(self._words))
        while True:
            number = self._draw.choices(everything, cum_weights=self._weights)[0]
            if self._tinted[number] or not tinted:
                return number

    def _noun(self, number: int) -> str:
        """Its usual name half of the time, else one of the others."""
        names = self._words[number].names
        return names[0] if self._draw.random() < 0.5 else self._draw.choice(names)

    def _described(self, adjectives: Sequence[str], noun: str) -> str:
        """An adjective before a noun, unless the two together are a name."""
        both = english.described([self._draw.choice(adjectives)], noun)
        return noun if both.lstrip("+") in self._whole else both

    def _colour(self, number: int) -> tuple[str, str]:
        """A colour and the noun with its word, which together name no other picture."""
        while True:
            colour = self._draw.choice(list(COLOURS))
            word = colour
            if self._draw.random() < 0.15:
                word = self._draw.choice(SHADES.get(colour, (colour,)))
            noun = english.described([word], self._noun(number))
            if noun.lstrip("+") not in self._whole:
                return colour, noun

    def _shade(self, colour: str) -> RGB:
        red, green, blue = (value + self._draw.uniform(-0.04, 0.04) for value in COLOURS[colour])
        return (red, green, blue)

    def _ground(self, blank: float, avoid: str = "") -> tuple[str, Ground]:
        """A phrase and the background that it means; white without words."""
        if self._draw.random() < blank:
            return "", plain(WHITE)
        if self._draw.random() < 0.4:
            place = self._draw.choice(PLACES)
            return self._draw.choice(place.phrases), place.ground
        colour = self._draw.choice([name for name in GROUNDS if name != avoid])
        return self._draw.choice(english.GROUND_PHRASES).format(colour), plain(GROUNDS[colour])

    def _layer(
        self,
        number: int,
        x: float = 0.0,
        y: float = 0.0,
        *,
        scale: float | None = None,
        tint: RGB | None = None,
        move: float = 0.07,
        still: bool = False,
    ) -> Layer:
        draw = self._draw
        turned = not still and draw.random() < 0.25
        return Layer(
            number,
            x + draw.uniform(-move, move),
            y + draw.uniform(-move, move),
            scale=draw.uniform(0.80, 0.98) if scale is None else scale,
            rotation=draw.uniform(-0.15, 0.15) if turned else 0.0,
            flip=not still and draw.random() < 0.2,
            tint=tint,
        )

    def _article(self, noun: str) -> str:
        chance = self._draw.random()
        if chance < 0.12:
            return noun.lstrip("+")
        return english.with_article(noun, "the" if chance < 0.2 else None)

    def _caption(self, what: str, where: str) -> str:
        ending = self._draw.choice(english.ENDINGS) if self._draw.random() < 0.08 else ""
        return english.joined(english.sentence(self._draw).format(what), where, ending).lower()


_BESIDE = (
    "{} and {}",
    "{} and {}",
    "{} and {}",
    "{} next to {}",
    "{} beside {}",
    "{} with {}",
    "{} on the left and {} on the right",
)
_ABOVE = ("{} above {}", "{} on top of {}", "{} over {}", "{} on {}")
_DURING = ("and", "in", "during", "with")


def draw_corpus(words: Sequence[Word], count: int, seed: int) -> tuple[Scenes, list[str]]:
    """Draws scenes with their captions.

    Args:
        words: the vocabulary, whose order numbers the pictures.
        count: number of scenes.
        seed: of everything random; the same gives the same corpus.
    """
    painter = Painter(words, seed)
    drafts = [painter.draft() for _ in range(count)]
    return pack(drafts), [draft.caption for draft in drafts]
