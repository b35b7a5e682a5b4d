r"""Key-frame text to key frames and back: `"0: a corgi\n60: a lion"`.

    parse.py        the stages, from text to key frames
    lines.py        one key frame a line: text to entries
    json_form.py    {"0": "a corgi"}: text to entries
    keys.py         `12`, `2.5s`, `max_f/2` to frame numbers
    fields.py       an entry's body to the texts between its marks
    body.py         those to parts, weights and options
    format.py       key frames to text

`docs/grammar.md` has the grammar. `parse_prompts(format_prompts(k)) == k` for all that the parser
returns, and any other text gives a `PromptError` with its line and column.
"""

from giffusion.engine.prompts.body import OPTIONS
from giffusion.engine.prompts.format import format_prompts
from giffusion.engine.prompts.keyframe import (
    MAX_PARTS,
    MAX_TEXT_LENGTH,
    MAX_WEIGHT,
    MIN_WEIGHT_SUM,
    KeyFrame,
    Part,
)
from giffusion.engine.prompts.parse import parse_prompts

__all__ = [
    "MAX_PARTS",
    "MAX_TEXT_LENGTH",
    "MAX_WEIGHT",
    "MIN_WEIGHT_SUM",
    "OPTIONS",
    "KeyFrame",
    "Part",
    "format_prompts",
    "parse_prompts",
]
