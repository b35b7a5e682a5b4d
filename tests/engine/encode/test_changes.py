"""The box that has to be drawn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from giffusion.engine.encode.changes import changed_box


@pytest.mark.parametrize("shape", [(6, 9), (6, 9, 3)])
def test_everything_at_first_and_one_pixel_where_nothing_changed(shape: tuple[int, ...]) -> None:
    picture = np.zeros(shape, np.uint8)
    assert changed_box(None, picture) == (0, 0, 9, 6)
    assert changed_box(picture, picture.copy()) == (0, 0, 1, 1)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 8), st.integers(0, 2)), min_size=1))
def test_the_box_holds_every_change_and_each_side_has_one(
    changes: list[tuple[int, int, int]],
) -> None:
    shown = np.zeros((6, 9, 3), np.uint8)
    picture = shown.copy()
    for change in changes:
        picture[change] = 1
    rows, columns = {row for row, _, _ in changes}, {column for _, column, _ in changes}
    assert changed_box(shown, picture) == (
        min(columns),
        min(rows),
        max(columns) + 1,
        max(rows) + 1,
    )
