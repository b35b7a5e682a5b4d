"""What an engine was made from and for: the record beside its plan, and what names it.

`store.py` keeps engines by these. The invariant: an engine's key is a function of all that its
content depends on, so two engines of one key are interchangeable.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from giffusion.engine.errors import InputError

FORMAT = 1
KEY_DIGITS = 16
MANIFEST = "manifest.json"


class EngineStoreError(InputError):
    """An entry of the engine store, or its folder, cannot be used."""


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """An engine that is wanted.

    Args:
        stage: the graph's stage, such as `denoise`.
        model: name of its model, for messages.
        digest: sha256 of the graph and its weights.
        package: name of the package that runs it.
        version: the package's version; plans of another are not loaded.
        devices: architectures that it must run on, such as `sm89`, ascending.
        precision: which of the model's files it is built from: `fp32`, `fp16` or `bf16`.
        size: (width, height) of its pictures in pixels, None where there are none.
        batches: batches that it must have a profile for, ascending.
        options: version of how it is built.
    """

    stage: str
    model: str
    digest: str
    package: str
    version: str
    devices: tuple[str, ...]
    precision: str
    size: tuple[int, int] | None
    batches: tuple[int, ...]
    options: int

    @property
    def key(self) -> str:
        """Hexadecimal digits that name an engine made for exactly this."""
        content = dataclasses.asdict(self)
        del content["model"]
        text = json.dumps(content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]

    def __str__(self) -> str:
        return (
            f"{self.stage} {self.precision} of '{self.model}'{_at(self.size)}, batch "
            f"{_listed(self.batches)}, for {_listed(self.devices)} with {self.package} "
            f"{self.version}"
        )

    def differences(self, made: EngineRequest) -> list[str]:
        """Says in words what an engine was made for instead, the gravest first.

        Args:
            made: what it was made for.

        Returns:
            One part of a sentence for each difference, none if the engine can be used.
        """
        words = []
        if made.stage != self.stage:
            words.append(f"the {made.stage} graph")
        if made.digest != self.digest:
            other = f"model '{made.model}'" if made.model != self.model else "another export"
            words.append(other)
        if made.package != self.package:
            words.append(made.package)
        elif (made.version, made.options) != (self.version, self.options):
            same = made.version == self.version
            words.append("an earlier giffusion" if same else f"version {made.version}")
        if not set(self.devices) <= set(made.devices):
            words.append(_listed(made.devices))
        if made.precision != self.precision:
            words.append(made.precision)
        if made.size != self.size:
            words.append(_at(made.size).removeprefix(" at "))
        if not set(self.batches) <= set(made.batches):
            words.append(f"batch {_listed(made.batches)}")
        return words


@dataclass(frozen=True, slots=True)
class EngineManifest:
    """The record of a stored engine: what it was made for, and what came out.

    Args:
        format: version of this record; this version reads `FORMAT`.
        made_for: what went into it.
        plan_sha256: of the plan, in hexadecimal digits.
        plan_bytes: size of the plan.
        build_s: seconds that the build took.
        created: when it was finished, ISO 8601 in UTC.
    """

    format: int
    made_for: EngineRequest
    plan_sha256: str
    plan_bytes: int
    build_s: float
    created: str

    def to_dict(self) -> dict[str, Any]:
        """Returns the record as JSON has it, flat."""
        entries = dataclasses.asdict(self)
        return {"format": entries.pop("format"), **entries.pop("made_for"), **entries}

    def write(self, path: Path) -> None:
        """Writes the record as JSON."""
        path.write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> EngineManifest:
        """Reads a record.

        Raises:
            EngineStoreError: it is missing, is not JSON, or has other keys or types than this
                version's.
        """
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise EngineStoreError(f"{path} is missing") from None
        except (OSError, ValueError) as error:
            raise EngineStoreError(f"{path} cannot be read: {error}") from None
        if not isinstance(entries, dict) or entries.get("format") != FORMAT:
            raise EngineStoreError(f"{path} is not of format {FORMAT}")
        if entries.keys() != _CHECKS.keys():
            wrong = ", ".join(sorted(entries.keys() ^ _CHECKS.keys()))
            raise EngineStoreError(f"{path} has missing or unknown keys: {wrong}")
        for name, (expected, is_valid) in _CHECKS.items():
            if not is_valid(entries[name]):
                raise EngineStoreError(f"{path} has {name} {entries[name]!r}: expected {expected}")
        for name in ("devices", "batches", "size"):
            entries[name] = None if entries[name] is None else tuple(entries[name])
        names = {field.name for field in dataclasses.fields(EngineRequest)}
        made_for = EngineRequest(**{name: entries.pop(name) for name in names})
        return cls(made_for=made_for, **entries)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_count(value: object) -> bool:
    return type(value) is int and value > 0


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and value >= 0


def _all(is_valid: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and bool(value) and all(map(is_valid, value))


def _is_size(value: object) -> bool:
    return value is None or (_all(_is_count)(value) and len(value) == 2)  # type: ignore[arg-type]


_TEXT = ("text", _is_text)
_COUNT = ("a whole number above 0", _is_count)
_CHECKS: dict[str, tuple[str, Callable[[object], bool]]] = {
    "format": _COUNT,
    **dict.fromkeys(("stage", "model", "digest", "package", "version", "precision"), _TEXT),
    "devices": ("a list of names", _all(_is_text)),
    "size": ("[width, height] or null", _is_size),
    "batches": ("a list of whole numbers above 0", _all(_is_count)),
    "options": _COUNT,
    "plan_sha256": _TEXT,
    "plan_bytes": _COUNT,
    "build_s": ("seconds", _is_seconds),
    "created": _TEXT,
}


def _listed(values: tuple[int, ...] | tuple[str, ...]) -> str:
    return ", ".join(map(str, values))


def _at(size: tuple[int, int] | None) -> str:
    return "" if size is None else f" at {size[0]}x{size[1]}"
