"""What commands say on the way, on standard error: `note` and `warn`.

Every command and `reports.py` say it through here; what a command makes goes to standard output.
The invariant: a line begins with the program's name, as refusals do.
"""

from __future__ import annotations

import sys


def note(text: str) -> None:
    """Says what was decided, or is waited for.

    Args:
        text: one line.
    """
    print(f"giffusion: {text}", file=sys.stderr)


def warn(text: str) -> None:
    """Says what the user may not have meant.

    Args:
        text: one line.
    """
    note(f"warning: {text}")
