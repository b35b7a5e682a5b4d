"""From where to where a film or a sound is shown or heard, and how messages say such times.

Called by whoever takes a start and an end from the user. Nothing here imports NumPy.
"""

from __future__ import annotations

from fractions import Fraction

from giffusion.engine.errors import SettingsError


def check_order(what: str, start_s: Fraction, end_s: Fraction | None) -> None:
    """Checks that a part ends after it begins.

    Args:
        what: the file is, `film` or `sound`.
        start_s: where the part begins.
        end_s: where it ends; None for the end of the file.

    Raises:
        SettingsError: it does not.
    """
    if end_s is not None and end_s <= start_s:
        raise SettingsError(
            f"the {what} would begin at {seconds(start_s)} and end at {seconds(end_s)}: expected "
            "the end above the start"
        )


def seconds(time_s: Fraction) -> str:
    """Returns a time as messages say it: six digits, without zeros at the end."""
    return f"{float(time_s):.6g} s"
