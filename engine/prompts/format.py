"""Key frames to the text that means them: `format_prompts`.

What a render writes into its file's metadata. The invariant: `parse_prompts(format_prompts(k)) ==
k` for all that the parser returns, and the text needs neither a rate nor a number of frames.
"""

from __future__ import annotations

from collections.abc import Iterable

from giffusion.engine.prompts.fields import escape
from giffusion.engine.prompts.keyframe import KeyFrame, Part


def format_prompts(key_frames: Iterable[KeyFrame]) -> str:
    """Writes valid key frames as the text that `parse_prompts` reads, one line each."""
    return "".join(f"{_key_frame(key_frame)}\n" for key_frame in key_frames)


def _key_frame(key_frame: KeyFrame) -> str:
    words = [f"{key_frame.frame}:", " | ".join(map(_part, key_frame.parts))]
    if key_frame.negative is not None:
        words += ["--neg", escape(key_frame.negative)]
    if key_frame.seed is not None:
        words += ["--seed", str(key_frame.seed)]
    if key_frame.hold is not None:
        words += ["--hold", repr(key_frame.hold)]
    if key_frame.ease is not None:
        words += ["--ease", key_frame.ease]
    if key_frame.is_cut:
        words.append("--cut")
    return " ".join(words)


def _part(part: Part) -> str:
    text = escape(part.text)
    return text if part.weight == 1 else f"{text}::{part.weight!r}"
