"""What came of the page's entries, each run once for all tests of this folder."""

from __future__ import annotations

import pytest

from tests.catalogue.entries import Entry, Outcome, run

_known: dict[Entry, Outcome] = {}


def outcome_of(entry: Entry, capture: pytest.CaptureFixture[str]) -> Outcome:
    """Returns what came of an entry; see `run`."""
    if entry not in _known:
        _known[entry] = run(entry, capture)
    return _known[entry]
