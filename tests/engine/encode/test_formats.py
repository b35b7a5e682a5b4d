"""The table of formats: an extension chooses one."""

from __future__ import annotations

from pathlib import Path

import pytest

from giffusion.engine.encode.encoders import ENCODERS
from giffusion.engine.encode.formats import FORMATS, output_format
from giffusion.engine.errors import OutputError
from tests.pages import table_rows


@pytest.mark.parametrize("name", ["a.mp4", "a.MP4", "a.b.Gif", "a.AVIF", "%d.png"])
def test_the_extension_chooses_the_format_in_either_case(name: str) -> None:
    assert output_format(Path(name)).name == Path(name).suffix[1:].upper()


@pytest.mark.parametrize("name", ["", "mp4", ".mp4", "a.", "a.mkv", "a.mp4.txt"])
def test_other_extensions_are_refused(name: str) -> None:
    with pytest.raises(OutputError, match=r"known: \.avif, \.gif, \.mp4, \.png"):
        output_format(Path(name))


def test_the_page_of_formats_says_what_the_tables_say() -> None:
    rows = table_rows("formats.md")
    # The table of formats is the page's first.
    by_name = {row[0]: row for row in reversed(rows) if len(row) == 7}
    for extension, kind in FORMATS.items():
        name = "`NAME/%05d.png`" if extension == ".png" else f"`{extension}`"
        assert by_name[name][1] == ", ".join(f"`{encoder}`" for encoder in kind.encoders)
        assert (by_name[name][4] != "none") == kind.carries_sound
    encoders = (row for row in rows if len(row) == 5 and row[0].strip("`") in ENCODERS)
    scales = {row[0].strip("`"): row[2:] for row in encoders}
    assert scales.keys() == {name for name, info in ENCODERS.items() if info.quality}
    for name, values in scales.items():
        options = ENCODERS[name].quality
        scale = options.get("init_qpP") or next(iter(options.values()))
        assert values == [scale.at(quality) for quality in (1, 75, 100)]
