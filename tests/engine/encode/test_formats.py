"""The table of formats: an extension chooses one."""

from __future__ import annotations

from pathlib import Path

import pytest

from giffusion.engine.encode.formats import output_format
from giffusion.engine.errors import OutputError


@pytest.mark.parametrize("name", ["a.mp4", "a.MP4", "a.b.Gif", "a.AVIF", "%d.png"])
def test_the_extension_chooses_the_format_in_either_case(name: str) -> None:
    assert output_format(Path(name)).name == Path(name).suffix[1:].upper()


@pytest.mark.parametrize("name", ["", "mp4", ".mp4", "a.", "a.mkv", "a.mp4.txt"])
def test_other_extensions_are_refused(name: str) -> None:
    with pytest.raises(OutputError, match=r"known: \.avif, \.gif, \.mp4, \.png"):
        output_format(Path(name))
