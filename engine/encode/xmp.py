"""A text as an XMP packet, which WebP and AVIF carry and picture editors keep.

Called by the encoders of those formats and by the readers of their files. Pure: text in, bytes out,
and back. The invariant: every text comes back as it was, and nothing in a packet is followed or
expanded, so that a crafted one costs no more than its size.

Source: ISO 16684-1, XMP data model and serialization.
"""

from __future__ import annotations

import re

MAX_PACKET_BYTES = 2**26
"""What is larger is no plan; readers refuse it."""
_HEAD = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:giffusion="urn:giffusion:1#"><giffusion:plan>'
)
_TAIL = '</giffusion:plan></rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
# An editor may write a short element as an attribute.
_PLAN = re.compile(
    r"<giffusion:plan>([^<]*)</giffusion:plan>"
    r"|\sgiffusion:plan\s*=\s*(?:\"([^\"<]*)\"|'([^'<]*)')"
)
_ENTITIES = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}
_ENTITY = re.compile(r"&(?:(amp|lt|gt|quot|apos)|#([0-9]{1,7})|#x([0-9a-fA-F]{1,6}));")
# A reader of XML makes \n of \r; the others have no place in XML, and come back here all the same.
_SPECIAL = re.compile("[&<>\r\0-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_NAMES = {"&": "amp", "<": "lt", ">": "gt"}


def to_xmp(text: str) -> bytes:
    """Returns a packet that carries a text."""
    return (_HEAD + _SPECIAL.sub(_escaped, text) + _TAIL).encode()


def from_xmp(packet: bytes) -> str | None:
    """Returns the text that a packet carries, or None where it has none of ours."""
    found = _PLAN.search(packet.decode(errors="replace"))
    if found is None:
        return None
    text = next(group for group in found.groups() if group is not None)
    return _ENTITY.sub(_unescaped, text)


def _escaped(special: re.Match[str]) -> str:
    name = _NAMES.get(special[0])
    return f"&{name};" if name else f"&#x{ord(special[0]):X};"


def _unescaped(entity: re.Match[str]) -> str:
    name, decimal, hexadecimal = entity.groups()
    if name:
        return _ENTITIES[name]
    code = int(decimal) if decimal else int(hexadecimal, 16)
    return chr(code) if code <= 0x10FFFF else entity[0]
