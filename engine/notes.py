"""What is told to whoever waits for a render: lines of text, one at a time.

Everything that takes long or decides for the user takes an `OnNote`; front ends print what it is
told. The invariant: a note is one line, and never an error.
"""

from __future__ import annotations

from collections.abc import Callable

OnNote = Callable[[str], None]
"""Takes a line of what was decided, or is waited for."""
