"""The page of messages: every entry's cause gives its very line, and keeps to the house rules."""

from __future__ import annotations

import re

import pytest

from tests.catalogue.entries import Entry, entries
from tests.catalogue.outcomes import outcome_of

ENTRIES = entries()
MAX_LENGTH = 400
"""Of a message, without the names that are known."""
# What Python would say of itself rather than of the user's text.
_PYTHON = re.compile(r"\bNone\b|<class|<function|object at 0x|Traceback|Fraction\(|Path\(")


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def test_an_entry_prints_its_line(entry: Entry, capfd: pytest.CaptureFixture[str]) -> None:
    outcome = outcome_of(entry, capfd)
    assert entry.prints(outcome.printed), outcome.printed
    assert outcome.code == (None if entry.in_python else 2)


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def test_a_message_keeps_to_the_house_rules(entry: Entry) -> None:
    *before, message = entry.printed
    assert _PYTHON.search(message) is None
    assert message.isprintable()
    assert len(message.partition("known: ")[0]) <= MAX_LENGTH
    assert not any(line.startswith("giffusion: ") for line in before)
    assert message.startswith("giffusion: ") != entry.in_python


def test_no_cause_stands_there_twice() -> None:
    causes = [(entry.scenes, entry.cause) for entry in ENTRIES]
    assert len(causes) > 200
    assert len(set(causes)) == len(causes)
