"""What a file carries of the render that made it, so that it can be made again.

`rendering.py` writes one into every file, `giffusion inspect` reads it. The invariant: a record
that is read back plans the frames of the render that wrote it, or is refused in a line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from fractions import Fraction
from importlib.metadata import version
from reprlib import repr as quote
from typing import Any

from giffusion.engine.errors import InputError, nearest
from giffusion.engine.kinds import expected_kind
from giffusion.engine.media_settings import DIGESTED
from giffusion.engine.prompts import format_prompts
from giffusion.engine.settings import RenderSettings
from giffusion.engine.timelines.planning import plan_timeline
from giffusion.engine.timelines.timeline import Timeline
from giffusion.engine.values import parse_fps, parse_seconds

_KEYS = ("giffusion", "prompts", "settings", "numerics")
_DIGEST = "_sha256"
_NUMERICS: Mapping[str, type] = {
    **dict.fromkeys(("model", "fingerprint", "runtime", "precision", "encoder"), str),
    **dict.fromkeys(("batch", "quality"), int),
    "shrink_tail": bool,
}


@dataclass(frozen=True, slots=True)
class RenderRecord:
    """A render: what was asked for, and by what it was made.

    Args:
        version: of giffusion.
        prompts: the key frames, as `format_prompts` writes them.
        settings: the job's; head and tail are part of the prompts.
        numerics: what the bits depend on besides: model, runtime, precision, batch, encoder.
        digests: sha256 of the user's files, as `source_digests` gives them.
    """

    version: str
    prompts: str
    settings: RenderSettings
    numerics: dict[str, Any]
    digests: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        timeline: Timeline,
        numerics: dict[str, Any],
        digests: Mapping[str, str] | None = None,
    ) -> RenderRecord:
        """Returns the record of a job, rendered with some numerics."""
        settings = replace(timeline.settings, head="", tail="")
        prompts = format_prompts(timeline.key_frames)
        return cls(version("giffusion"), prompts, settings, numerics, dict(digests or {}))

    def to_json(self) -> str:
        """Returns the record as JSON, on one line."""
        settings = {
            name: str(value) if isinstance(value, Fraction) else value
            for name, value in asdict(self.settings).items()
        }
        values = (self.version, self.prompts, settings, self.numerics)
        record = dict(zip(_KEYS, values, strict=True))
        record |= {f"{name}{_DIGEST}": digest for name, digest in self.digests.items()}
        # A path that is no UTF-8 has surrogates, which become JSON's own escapes.
        text = json.dumps(record, ensure_ascii=False)
        return text.encode(errors="backslashreplace").decode()

    @classmethod
    def from_json(cls, text: str) -> RenderRecord:
        """Reads a record.

        Raises:
            InputError: the text is none, or has settings that this version does not know.
        """
        try:
            record = json.loads(text)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict) or not set(_KEYS) <= record.keys():
            raise InputError("the text in it is no plan of a render: expected one by giffusion")
        given, prompts, settings, numerics = (record[key] for key in _KEYS)
        named = ((name, record.get(f"{name}{_DIGEST}")) for name in DIGESTED)
        digests = {name: digest for name, digest in named if digest is not None}
        if not (
            isinstance(given, str)
            and isinstance(prompts, str)
            and _is_sound(numerics)
            and all(isinstance(digest, str) for digest in digests.values())
        ):
            raise InputError("its plan is damaged: expected texts and settings by giffusion")
        return cls(given, prompts, _settings(settings), numerics, digests)

    def timeline(self, source: str) -> Timeline:
        """Plans the render again.

        Args:
            source: name of where the record stands, for messages.

        Raises:
            InputError: its prompts or settings cannot be used, or its sound cannot be read.
        """
        return plan_timeline(self.prompts, self.settings, source)


def _is_sound(numerics: object) -> bool:
    """Returns whether what a render reads of its numerics has the right type."""
    if not isinstance(numerics, dict):
        return False
    return all(type(numerics[name]) is kind for name, kind in _NUMERICS.items() if name in numerics)


def _settings(values: object) -> RenderSettings:
    kinds = {field.name: str(field.type) for field in fields(RenderSettings)}
    if not isinstance(values, dict):
        raise InputError("its plan has no settings: expected an object")
    for name in values:
        if name not in kinds:
            raise InputError(f"its plan has no setting {quote(name)}: {nearest(name, kinds)}")
    read = {name: _from_json(name, kinds[name], value) for name, value in values.items()}
    for name, value in read.items():
        if (expected := expected_kind(value, kinds[name])) is not None:
            raise InputError(f"its plan has {name} {quote(values[name])}: expected {expected}")
    return RenderSettings(**read)


def _from_json(name: str, kind: str, value: Any) -> Any:
    """Returns a value as the settings have it, which JSON can only spell."""
    if kind.startswith("Fraction") and isinstance(value, str):
        return parse_fps(value) if name == "fps" else parse_seconds(value)
    return tuple(value) if kind.startswith("tuple") and isinstance(value, list) else value
