"""Other ways to say a caption: sentences, backgrounds and words that the corpus has none of.

`lessons` draws them. A rephrasing is a list of pieces, what is said beside what it means, so that
every token of the one has tokens of the other that it stands for. The invariant: no sentence and no
ground of the evaluation is drawn, and no name of a thing as a word that means none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random

from giffusion.models.training import captions as english
from giffusion.models.training.palette import GROUNDS

_SAYINGS = (
    *("i want", "i need", "i like", "i love", "i'd like to have", "you find", "they have", "it is"),
    *("it's", "that is", "that's", "this shows", "here comes", "here we have", "there stands"),
    *("there goes", "who likes", "what about", "how about", "let's have", "let us make", "we have"),
    *("we found", "we love", "he has", "she wants", "my favourite is", "my friend has", "please"),
    *("everybody likes", "someone made", "nobody knows", "once upon a time there was", "maybe"),
    *("today we have", "can you make", "could you paint", "would you render", "please make"),
    *("please show", "please give me", "think of", "dream of", "a world with", "nothing but"),
    *("all about", "just", "only", "simply", "hello", "oh", "wow", "yes", "ok", "hey", "here:"),
    *("subject:", "prompt:", "title:", "object:", "nice:", "new:"),
)
_VERBS = (
    *("paint", "create", "generate", "produce", "render", "design", "build", "display", "present"),
    *("give", "bring", "put", "find", "get", "want", "need", "love", "like", "take", "consider"),
    *("visualize", "behold", "introducing", "presenting", "featuring", "starring", "now", "today"),
    *("suddenly", "finally", "always", "still", "once", "print", "sculpt", "compose", "craft"),
    *("form", "invent", "play", "hear", "feel", "touch", "hold", "keep", "carry", "meet", "greet"),
    *("follow", "remember", "believe", "enjoy", "admire", "guess", "try", "open", "let", "call"),
    *("name", "show", "tell", "watch", "spot", "notice", "discover", "observe", "explore"),
    *("capture", "portray", "illustrate", "add", "place", "insert", "include", "use", "start"),
)
MEDIA = (
    *("rendition", "scan", "logo", "sticker", "badge", "stamp", "symbol", "emblem", "vision"),
    *("dream", "memory", "story", "scene", "frame", "still", "clip", "postcard", "mural"),
    *("toy", "model", "figure", "sculpture", "doodle", "cartoon", "comic", "collage", "thumbnail"),
    *("avatar", "wallpaper", "banner", "card", "page", "cover", "screenshot", "glimpse", "study"),
    *("piece", "work", "gallery", "tribute", "version", "type", "kind", "example", "sample"),
    *("copy", "variation", "interpretation", "representation", "visualization", "impression"),
    *("likeness", "display", "view", "panorama", "pictogram", "glyph", "token", "graphic"),
    *("design", "pattern", "composition", "concept", "idea", "mockup", "etching", "engraving"),
    *("woodcut", "fresco", "canvas", "plot", "chart", "diagram", "map", "print", "poster", "pin"),
    *("patch", "tattoo", "tile", "puzzle", "figurine", "miniature", "ornament", "souvenir"),
    *("picture", "photo", "image", "drawing"),
)
"""What pictures are called; none is the name of a thing, which would not be drawn."""

_LINKS = (
    *("of", "of", "of", "of", "with", "showing", "depicting", "featuring", "containing", "about"),
    *("presenting", "for"),
)
_ADJECTIVES = (
    *("great", "new", "old", "random", "typical", "stylish", "modern", "classic", "fun", "lovely"),
    *("wonderful", "perfect", "fine", "bold", "fresh", "vivid", "bright", "soft", "short", "long"),
    *("special", "famous", "original", "official", "personal", "digital", "plain", "minimal"),
    *("abstract", "glossy", "shiny", "quick", "strange", "weird", "happy", "sad", "warm", "second"),
    *("third", "last", "first"),
)
_ARTICLES = (
    *("a", "a", "a", "the", "my", "your", "our", "his", "her", "this", "that", "another", "some"),
    *("any", "every", "each", "no"),
)
_ENDINGS = (
    *(", please", "please", "for you", "for me", "right now", "today", "again", ", thanks"),
    *("of mine", "of course", "like this", ", very nice", ", studio light", ", best quality"),
    *(", ultra hd", ", soft light", ", centered", ", isolated", ", no text", ", vector art"),
    *(", flat design", ", cinematic", ", 8k", ", octane render", ", hdr", ", award winning"),
)
_BEFORE_GROUNDS = (
    *("on", "on", "on", "against", "with", "in", "across", "upon", "atop", "amid", "among", "by"),
    *("beside", "near", "inside", "within", "under", "through", "from", "at", "using", "having"),
    *("around", "behind", "beyond", "into", "toward", "via", "along", "in front of", ", with"),
    *("set on", "set against", "placed on", "standing on", "shown on", "in front of"),
    # These set two things side by side, or one above the other, unless a ground follows.
    *("next to", "above", "on top of", "plus", "along with", "together with"),
)
BACKDROPS = (
    *("background", "background", "background", "backdrop", "backdrop", "wall", "surface"),
    *("canvas", "screen", "paper", "page", "field", "base", "sheet", "board", "poster"),
)
"""What backgrounds are called; none is the name of a thing, which would become one."""

_HEADS = "bcdfghklmnprstvwz"
_VOWELS = "aeiou"


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a caption.

    Attributes:
        said: how the rephrasing has it; not empty.
        meant: how the corpus has it, empty if it has nothing of the kind.
    """

    said: str
    meant: str


class Rephraser:
    """Draws rephrasings of the corpus's captions.

    Args:
        seed: of everything random.
    """

    def __init__(self, seed: int) -> None:
        self._draw = Random(seed)
        self._openings = sorted(english.openings(), key=len, reverse=True)
        colours = "|".join(sorted(GROUNDS, key=len, reverse=True))
        forms = "|".join(re.escape(form).replace(r"\{\}", "#") for form in english.GROUND_PHRASES)
        self._ground = re.compile(rf"(?:{forms.replace('#', f'({colours})')})$")

    def rephrase(self, caption: str) -> list[Piece]:
        """Says a caption of the corpus otherwise.

        Its sentence and its ending, which mean nothing, are left out or replaced; a background of a
        colour is put into other words, or into others of the corpus.

        Args:
            caption: of the corpus, in lower case.

        Returns:
            Its pieces, in order.
        """
        draw = self._draw
        thing, colour = self._parts(caption)
        opening = self._opening() if draw.random() < 0.85 else ""
        pieces = [Piece(opening, "")] if opening else []
        pieces.append(Piece(thing, thing))
        if colour:
            pieces += self._on(colour)
        if draw.random() < 0.15:
            ending = draw.choice(_ENDINGS) if draw.random() < 0.6 else f", {self._word()}"
            pieces.append(Piece(ending, ""))
        return pieces

    def _parts(self, caption: str) -> tuple[str, str]:
        """What a caption shows, and the colour of its background if that is all there is of it."""
        for ending in english.ENDINGS:
            caption = caption.removesuffix(ending)
        opening = next((one for one in self._openings if caption.startswith(one)), "")
        caption = caption.removeprefix(opening)
        # As the forms of grounds have it, of whose colours one begins with a vowel.
        found = self._ground.search(caption.replace(" an orange", " a orange"))
        if found is None:
            return caption, ""
        colour = next(one for one in found.groups() if one)
        return caption[: found.start()].rstrip(), colour

    def _on(self, colour: str) -> list[Piece]:
        draw, coloured = self._draw, english.with_article(colour)
        meant = f"on {coloured}"
        if draw.random() < 0.3:
            form = english.joined(draw.choice(english.GROUND_PHRASES).format(colour))
            return [Piece(form, f"{meant} background")]
        ground = Piece(draw.choice(BACKDROPS), "background")
        if draw.random() < 0.2:
            return [Piece(f"{draw.choice((',', 'in'))} {colour}", meant), ground]
        before = draw.choice(_BEFORE_GROUNDS)
        return [Piece(before, "on"), Piece(coloured, coloured), ground]

    def _opening(self) -> str:
        draw = self._draw
        kind = draw.random()
        if kind < 0.12:
            return draw.choice(_VERBS)
        if kind < 0.27:
            return draw.choice(_SAYINGS)
        if kind < 0.55:
            verb = draw.choice(_VERBS + _SAYINGS) if draw.random() < 0.3 else ""
            adjective = draw.choice(_ADJECTIVES) if draw.random() < 0.3 else ""
            noun = (draw.choice(_ARTICLES), adjective, draw.choice(MEDIA), draw.choice(_LINKS))
            return english.joined(verb, *noun)
        if kind < 0.85:
            words = [self._word() for _ in range(draw.choice((1, 1, 2, 3)))]
            article = draw.choice(_ARTICLES) if draw.random() < 0.2 else ""
            link = draw.choice(_LINKS) if draw.random() < 0.25 else ""
            return english.joined(article, *words, link) + draw.choice(("", "", "", ",", ":"))
        return draw.choice(_VERBS) + draw.choice((",", ":", " me", " us", " this", " it", ""))

    def _word(self) -> str:
        """A word that means nothing, of one to three syllables."""
        draw = self._draw
        syllables = range(draw.choice((1, 2, 2, 3)))
        return "".join(
            draw.choice(_HEADS)
            + draw.choice(_VOWELS)
            + (draw.choice(_HEADS) if draw.random() < 0.3 else "")
            for _ in syllables
        )
