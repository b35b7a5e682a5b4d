"""How many key frames are made, and where they stand.

The options of `giffusion inspire` show its default; nothing else of the package is loaded for that.
"""

from __future__ import annotations

from giffusion.engine.errors import SettingsError
from giffusion.engine.settings import MAX_FRAMES, MAX_SEED

DEFAULT_KEY_FRAMES = 6


def check_plan(num_key_frames: int, gap: int, seed: int) -> None:
    """Checks how many key frames there are to be, and where.

    Raises:
        SettingsError: a number is out of its range.
    """
    if num_key_frames < 1:
        raise SettingsError(f"there are {num_key_frames} key frames: expected 1 or more")
    if gap < 1:
        raise SettingsError(f"gap {gap} is out of range: expected 1 frame or more")
    if (num_key_frames - 1) * gap >= MAX_FRAMES:
        raise SettingsError(
            f"{num_key_frames} key frames, {gap} frames apart, are more than {MAX_FRAMES} frames: "
            "expected fewer, or a smaller gap"
        )
    if not 0 <= seed <= MAX_SEED:
        raise SettingsError(f"seed {seed} is out of range: expected 0 to {MAX_SEED}")
