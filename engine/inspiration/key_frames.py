"""Sentences to key frames: `inspire`, and for anybody's text `spaced`.

`giffusion inspire` calls both and writes the key frames with `format_prompts`. The invariant: the
text of a key frame means the sentence, letter by letter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import islice

from giffusion.engine.inspiration.plan import DEFAULT_KEY_FRAMES, check_plan
from giffusion.engine.inspiration.vocabulary import Vocabulary
from giffusion.engine.inspiration.walk import walk
from giffusion.engine.prompts import KeyFrame, Part

# The marks of weights, which `Part.text` has behind a backslash; see `emphasis.py`.
_EMPHASIS = re.compile(r"[\\()\[\]]")


def inspire(
    vocabulary: Vocabulary,
    topics: Sequence[str] = (),
    *,
    num_key_frames: int = DEFAULT_KEY_FRAMES,
    gap: int = 24,
    seed: int = 0,
) -> tuple[KeyFrame, ...]:
    """Makes key frames of topics.

    Args:
        vocabulary: what there is to show.
        topics: as `parse_topics` returns them; may be empty.
        num_key_frames: how many, at least 1.
        gap: frames from one to the next.
        seed: of all choices, 0 … 2^63 - 1.

    Raises:
        SettingsError: a number is out of its range.
    """
    check_plan(num_key_frames, gap, seed)
    return spaced(islice(walk(vocabulary, topics, seed), num_key_frames), gap)


def spaced(sentences: Iterable[str], gap: int) -> tuple[KeyFrame, ...]:
    """Makes a key frame of each sentence.

    Args:
        sentences: plain texts of one line, not empty and without white space at their ends.
        gap: frames from one to the next.
    """
    return tuple(
        KeyFrame(index * gap, (Part(_EMPHASIS.sub(r"\\\g<0>", sentence)),))
        for index, sentence in enumerate(sentences)
    )
