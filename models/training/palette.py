"""Colours, places and weather that captions name, and how each looks.

`corpus` paints with it and `questions` asks for it. Phrases after `~` in a table stand in no
caption of the training. The invariant: a word here means one look.
"""

from __future__ import annotations

from dataclasses import dataclass

RGB = tuple[float, float, float]

WHITE: RGB = (1.0, 1.0, 1.0)

COLOURS: dict[str, RGB] = {
    "red": (0.86, 0.12, 0.14),
    "orange": (0.97, 0.52, 0.10),
    "yellow": (0.98, 0.83, 0.18),
    "green": (0.20, 0.66, 0.27),
    "blue": (0.14, 0.40, 0.90),
    "purple": (0.53, 0.25, 0.76),
    "pink": (0.98, 0.52, 0.72),
    "brown": (0.50, 0.31, 0.18),
    "black": (0.10, 0.10, 0.11),
    "white": (0.96, 0.96, 0.97),
    "grey": (0.56, 0.57, 0.60),
    "turquoise": (0.15, 0.75, 0.73),
}

SHADES: dict[str, tuple[str, ...]] = {
    "grey": ("gray",),
    "purple": ("violet",),
    "red": ("scarlet", "crimson"),
    "turquoise": ("teal", "cyan"),
    "yellow": ("golden",),
}
"""Other words for the same colours."""

GROUNDS: dict[str, RGB] = {
    **COLOURS,
    "white": WHITE,
    "light blue": (0.65, 0.85, 0.98),
    "light green": (0.70, 0.92, 0.66),
    "dark blue": (0.05, 0.09, 0.34),
    "dark green": (0.04, 0.29, 0.13),
    "beige": (0.93, 0.87, 0.75),
}


@dataclass(frozen=True, slots=True)
class Ground:
    """A background of two colours that blend about a height `horizon`, over a height `blend`."""

    top: RGB
    bottom: RGB
    horizon: float = 0.0
    blend: float = 2.0


def plain(colour: RGB) -> Ground:
    """A background of one colour."""
    return Ground(colour, colour)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a thing can be: phrases that follow it, and the background that they mean."""

    phrases: tuple[str, ...]
    ground: Ground


@dataclass(frozen=True, slots=True)
class Weather:
    """What a day is like.

    Attributes:
        code: the picture that stands for it.
        nouns: phrases that name it by itself; `+` before those without an article.
        phrases: phrases that follow a thing.
        ground: the background.
        held_out: nouns of the evaluation.
    """

    code: str
    nouns: tuple[str, ...]
    phrases: tuple[str, ...]
    ground: Ground
    held_out: tuple[str, ...] = ()


_DAY, _GRASS = (0.42, 0.74, 0.98), (0.45, 0.76, 0.30)

PLACES = (
    Place(
        ("on grass", "on the grass", "in a field", "in a meadow", "on a lawn", "in the garden"),
        Ground((0.60, 0.83, 0.98), _GRASS, 0.45, 0.15),
    ),
    Place(
        ("in the desert", "on sand", "in the sand"),
        Ground((0.74, 0.88, 0.98), (0.93, 0.78, 0.50), 0.4, 0.15),
    ),
    Place(
        ("on the beach", "at the beach", "by the sea"),
        Ground((0.20, 0.62, 0.88), (0.95, 0.85, 0.62), 0.4, 0.15),
    ),
    Place(("in the snow", "on snow"), Ground((0.66, 0.77, 0.90), (0.96, 0.98, 1.0), 0.4, 0.2)),
    Place(
        ("at night", "in the night", "under the night sky", "in the dark"),
        Ground((0.02, 0.03, 0.13), (0.11, 0.13, 0.32)),
    ),
    Place(
        ("at sunset", "at dusk", "in the evening", "at dawn"),
        Ground((0.36, 0.22, 0.52), (0.99, 0.58, 0.26)),
    ),
    Place(
        ("in the sky", "in the air", "flying in the sky"),
        Ground((0.28, 0.60, 0.95), (0.76, 0.90, 1.0)),
    ),
    Place(
        ("in the ocean", "in the sea", "under water", "underwater", "in the water"),
        Ground((0.22, 0.68, 0.86), (0.02, 0.20, 0.46)),
    ),
    Place(("in space", "in outer space"), Ground((0.01, 0.01, 0.05), (0.10, 0.05, 0.20))),
    Place(
        ("in the forest", "in the woods", "in the jungle", "in a forest"),
        Ground((0.28, 0.52, 0.32), (0.09, 0.24, 0.10)),
    ),
    Place(
        ("in a room", "indoors", "in the house", "at home"),
        Ground((0.96, 0.90, 0.80), (0.66, 0.47, 0.32), 0.5, 0.04),
    ),
    Place(
        ("on the street", "on the road", "in the city", "in the street"),
        Ground((0.80, 0.86, 0.92), (0.36, 0.38, 0.42), 0.45, 0.06),
    ),
    Place(
        ("on a table", "on the table", "on a desk"),
        Ground((0.97, 0.95, 0.91), (0.60, 0.40, 0.24), 0.45, 0.03),
    ),
)

WEATHERS = (
    Weather(
        "26c8",
        (
            "lightning storm",
            "thunderstorm",
            "storm",
            "+thunder and lightning",
            "+stormy weather",
            "stormy day",
            "heavy storm",
        ),
        (
            "in a lightning storm",
            "in a thunderstorm",
            "in a storm",
            "during a storm",
            "on a stormy day",
            "in stormy weather",
        ),
        Ground((0.16, 0.18, 0.27), (0.36, 0.40, 0.48)),
        ("violent storm", "storm with lightning", "thunder storm"),
    ),
    Weather(
        "2600",
        (
            "sunny day",
            "+sunshine",
            "+sunny weather",
            "bright sunny day",
            "clear sunny day",
            "warm sunny day",
            "bright day",
            "summer day",
        ),
        (
            "on a sunny day",
            "in the sun",
            "in the sunshine",
            "in sunny weather",
            "on a summer day",
            "under the sun",
        ),
        Ground(_DAY, _GRASS, 0.6, 0.15),
        ("beautiful sunny day", "hot sunny day", "sunny summer day"),
    ),
    Weather(
        "1f327",
        ("+rain", "rainy day", "+rainy weather", "+heavy rain", "rain storm", "downpour"),
        ("in the rain", "on a rainy day", "in rainy weather", "in heavy rain"),
        Ground((0.50, 0.56, 0.66), (0.36, 0.43, 0.50)),
        ("day of rain", "+wet rainy weather"),
    ),
    Weather(
        "1f328",
        ("snowy day", "+snowfall", "snowstorm", "blizzard", "+snowy weather", "winter day"),
        ("in a snowstorm", "on a snowy day", "in a blizzard", "on a winter day"),
        Ground((0.62, 0.72, 0.86), (0.97, 0.98, 1.0), 0.5, 0.3),
        ("snow storm", "cold snowy day"),
    ),
    Weather(
        "1f319",
        ("moonlit night", "+night", "+moonlight", "night sky", "+night with a moon"),
        ("in the moonlight", "by moonlight", "on a moonlit night", "under the moon"),
        Ground((0.02, 0.03, 0.13), (0.13, 0.15, 0.36)),
        ("dark night with a moon",),
    ),
    Weather(
        "2b50",
        ("starry night", "starry sky", "+starlight"),
        ("under the stars", "on a starry night", "under a starry sky"),
        Ground((0.04, 0.02, 0.18), (0.20, 0.12, 0.42)),
        ("night of stars",),
    ),
    Weather(
        "2601",
        ("cloudy day", "+cloudy weather", "overcast day", "cloudy sky", "grey day"),
        ("on a cloudy day", "in cloudy weather", "under a cloud"),
        Ground((0.60, 0.70, 0.80), (0.82, 0.87, 0.92)),
        ("dull cloudy day",),
    ),
    Weather(
        "26c5",
        ("partly cloudy day", "day with sun and clouds", "partly sunny day"),
        ("on a partly cloudy day",),
        Ground((0.45, 0.72, 0.95), (0.80, 0.91, 1.0)),
    ),
    Weather(
        "1f308",
        ("sky with a rainbow", "rainbow in the sky"),
        ("under a rainbow", "with a rainbow", "below a rainbow"),
        Ground((0.45, 0.75, 0.98), (0.78, 0.91, 1.0)),
    ),
    Weather(
        "1f32a",
        ("windstorm", "+stormy winds", "whirlwind in the sky"),
        ("in a tornado", "in a windstorm"),
        Ground((0.45, 0.50, 0.50), (0.62, 0.62, 0.52)),
    ),
    Weather(
        "1f329",
        ("lightning strike", "flash of lightning", "sky with lightning"),
        ("under lightning", "struck by lightning"),
        Ground((0.14, 0.13, 0.28), (0.30, 0.28, 0.48)),
    ),
)
