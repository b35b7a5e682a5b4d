"""What a model folder says of itself, in `giffusion.json`.

`giffusion.export` writes manifests, `model.py` reads them. The invariant: a manifest that was read
has every field, each of its type.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as quote

from giffusion.engine.errors import ModelError
from giffusion.engine.kinds import expected_kind

MANIFEST = "giffusion.json"
FORMAT = 2
GRAPH_DTYPES = ("fp32", "fp16", "bf16")
"""What a graph's network computes in; runtimes that choose for themselves read the first."""
_PARTS = {
    "text": ("text_encoder/", "text_encoder_2/"),
    "denoise": ("unet/", "controlnet/"),
    "decode": ("decoder/",),
    "encode": ("vae/",),
    "control": ("controlnet/",),
}
_LISTS = {"size": 2, "pad_token_ids": None, "text_dims": None}
"""The fields that are lists of whole numbers, with their lengths where they have one."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a render needs to know of a model besides its graphs.

    Args:
        format: version of this file; this engine reads `FORMAT`.
        name: what the model is called.
        size: (width, height) in pixels that it was trained at.
        size_multiple: widths and heights are multiples of this, in pixels.
        num_tokens: tokens a prompt.
        pad_token_ids: ids that fill short prompts, one for each text encoder.
        text_dims: widths of the text encoders' embeddings, which stand side by side.
        pooled_dim: width of SDXL's pooled prompt embedding; None for other models.
        zero_negative: whether an empty negative prompt is zeros, as in SDXL, and is not encoded.
        token_vectors: tokens that stand for several, `word`, `word_1`, …, with their number.
        time_dim: width of the timestep's sinusoid.
        guidance_dim: width of the guidance scale's sinusoid where the model takes it, as LCM does,
            and guidance needs no negative row; None for other models.
        control_dim: width of the embedding of a ControlNet's map; None for models without one.
        flip_sin_to_cos: whether the sinusoid begins with its cosines.
        freq_shift: shift of the sinusoid's frequencies.
        graphs: sha256 of each graph file, by its name without `.onnx`.
        sources: sha256 of each file in the folder that rendering reads besides, by path.
        origin: sha256 of the files that the folder was made of, by the names they had.
    """

    format: int
    name: str
    size: tuple[int, int]
    size_multiple: int
    num_tokens: int
    pad_token_ids: tuple[int, ...]
    text_dims: tuple[int, ...]
    pooled_dim: int | None
    zero_negative: bool
    token_vectors: dict[str, int]
    time_dim: int
    guidance_dim: int | None
    control_dim: int | None
    flip_sin_to_cos: bool
    freq_shift: float
    graphs: dict[str, str]
    sources: dict[str, str]
    origin: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Reads a manifest.

        Raises:
            ModelError: the file is missing, is not JSON, or has other keys than this version's.
        """
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ModelError(
                f"{path.parent} is not a model folder: it has no {MANIFEST}; a diffusers folder "
                f"becomes one by `giffusion export {path.parent} -o DIR`"
            ) from None
        except (OSError, ValueError) as error:
            raise ModelError(f"{path} cannot be read: {error}; export the model again") from None
        if not isinstance(entries, dict) or entries.get("format") != FORMAT:
            raise ModelError(f"{path} is not of format {FORMAT}: export the model again")
        expected = {field.name for field in dataclasses.fields(cls)}
        if entries.keys() != expected:
            wrong = ", ".join(sorted(entries.keys() ^ expected))
            raise ModelError(f"{path} has missing or unknown keys: {wrong}; export it again")
        for field in dataclasses.fields(cls):
            value = entries[field.name]
            if (wanted := _expected(field.name, str(field.type), value)) is not None:
                raise ModelError(
                    f"{path} has {field.name} {quote(value)}: expected {wanted}; export it again"
                )
        return cls(**entries | {name: tuple(entries[name]) for name in _LISTS})

    @property
    def prompt_dim(self) -> int:
        """Width of the prompt embeddings."""
        return sum(self.text_dims)

    def graph_digest(self, name: str) -> str:
        """Returns the sha256 of all that a graph is made of: its file and its weights.

        Args:
            name: the graph file's name without `.onnx`, a key of `graphs`.
        """
        parts = _PARTS[name.partition(".")[0]]
        weights = self._below(parts) or self._below(_PARTS["encode"])
        content = json.dumps([self.graphs[name], weights], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def _below(self, folders: tuple[str, ...]) -> dict[str, str]:
        return {path: sha for path, sha in self.sources.items() if path.startswith(folders)}

    def write(self, path: Path) -> None:
        """Writes the manifest as JSON."""
        text = json.dumps(dataclasses.asdict(self), indent=2) + "\n"
        path.write_text(text, encoding="utf-8")


def _expected(name: str, annotation: str, value: object) -> str | None:
    """Says what a field's value should have been, or None where it is that."""
    if name not in _LISTS:
        return expected_kind(value, annotation)
    length = _LISTS[name]
    is_list = isinstance(value, list) and all(type(item) is int for item in value)
    fits = is_list and (len(value) == length if length else value)  # type: ignore[arg-type]
    return None if fits else "a list of whole numbers"
