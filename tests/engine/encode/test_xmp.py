"""Any text through a packet, which is XML that others can read."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from giffusion.engine.encode.xmp import from_xmp, to_xmp

PLAN = "{urn:giffusion:1#}plan"
# What UTF-8 and XML both have.
PRINTED = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"]))


@given(st.text(st.characters(exclude_categories=["Cs"])))
@example("&amp;&#65;</giffusion:plan><giffusion:plan>")
@example("\r\n\t\0\x0b\x85\ufffe\uffff]]>\"'")
def test_every_text_comes_back(text: str) -> None:
    assert from_xmp(to_xmp(text)) == text


@given(PRINTED)
def test_a_parser_of_xml_reads_the_same(text: str) -> None:
    root = ElementTree.fromstring(to_xmp(text).decode().lstrip("\ufeff"))
    (plan,) = root.iter(PLAN)
    assert (plan.text or "") == text


@pytest.mark.parametrize(
    ("packet", "text"),
    [
        (b"", None),
        (b"<x:xmpmeta></x:xmpmeta>", None),
        (b"<rdf:Description giffusion:plan=\"a &quot;b&quot;\" x='y'/>", 'a "b"'),
        (b"<rdf:Description\n giffusion:plan = 'a &apos; b'/>", "a ' b"),
        (b"<giffusion:plan>&#x1F981;&#233;&nbsp;&#x110000;</giffusion:plan>", None),
        (b"<giffusion:plan>never ended", None),
        (b"\xff<giffusion:plan>a\xff</giffusion:plan>", "a\ufffd"),
    ],
)
def test_packets_that_others_wrote(packet: bytes, text: str | None) -> None:
    if b"1F981" in packet:
        text = "🦁é&nbsp;&#x110000;"  # what is no character and no name of XML's stays
    assert from_xmp(packet) == text


def test_nothing_that_a_packet_defines_is_expanded() -> None:
    bomb = b'<!DOCTYPE a [<!ENTITY b "bbbb">]><giffusion:plan>&b;&b;</giffusion:plan>'
    assert from_xmp(bomb) == "&b;&b;"
