"""A model folder: fused graphs, a tokenizer, the scheduler's config and a manifest.

`giffusion.export` writes such folders, `load_model` opens them, and the engine reads nothing
else.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from reprlib import repr as quote

from giffusion.engine.contract import (
    LATENT_SCALE,
    GraphSpec,
    decode_spec,
    denoise_spec,
    encode_spec,
    text_spec,
)
from giffusion.engine.errors import ModelError, SettingsError
from giffusion.engine.schedule import NoiseSchedule
from giffusion.engine.tokenizer import PromptTokenizer

MANIFEST = "giffusion.json"
FORMAT = 1
GRAPHS = ("text", "denoise", "decode", "encode")
GRAPH_DTYPES = ("fp32", "fp16", "bf16")
"""What a graph's network computes in; runtimes that choose for themselves read the first."""
_WEIGHTS = {"text": "text_encoder/", "denoise": "unet/", "decode": "vae/", "encode": "vae/"}
_KINDS: dict[str, type | tuple[type, ...]] = {
    "int": int,
    "str": str,
    "bool": bool,
    "float": (int, float),
    "dict[str, str]": dict,
}
_CALLED = {
    "int": "a whole number",
    "str": "a text",
    "bool": "true or false",
    "float": "a number",
    "dict[str, str]": "an object of texts",
}


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a render needs to know of a model besides its graphs.

    Args:
        format: version of this file; this engine reads `FORMAT`.
        name: what the model is called.
        size: (width, height) in pixels that it was trained at.
        size_multiple: widths and heights are multiples of this, in pixels.
        num_tokens: tokens a prompt.
        pad_token_id: id that fills short prompts.
        prompt_dim: width of the prompt embeddings.
        time_dim: width of the timestep's sinusoid.
        flip_sin_to_cos: whether the sinusoid begins with its cosines.
        freq_shift: shift of the sinusoid's frequencies.
        graphs: sha256 of each graph file, by its name without `.onnx`.
        sources: sha256 of each checkpoint file that the graphs take weights from, by path.
    """

    format: int
    name: str
    size: tuple[int, int]
    size_multiple: int
    num_tokens: int
    pad_token_id: int
    prompt_dim: int
    time_dim: int
    flip_sin_to_cos: bool
    freq_shift: float
    graphs: dict[str, str]
    sources: dict[str, str]

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
                f"becomes one by `python -m giffusion.export {path.parent}`"
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
            kind = _KINDS.get(str(field.type))
            if kind is not None and not isinstance(entries[field.name], kind):
                raise ModelError(
                    f"{path} has {field.name} {quote(entries[field.name])}: expected "
                    f"{_CALLED[str(field.type)]}; export it again"
                )
        match entries.pop("size"):
            case [int(width), int(height)]:
                return cls(size=(width, height), **entries)
            case size:
                raise ModelError(
                    f"{path} has the size {quote(size)}: expected [width, height]; export it again"
                )

    def graph_digest(self, name: str) -> str:
        """Returns the sha256 of all that a graph is made of: its file and its weights.

        Args:
            name: the graph file's name without `.onnx`, a key of `graphs`.
        """
        prefix = _WEIGHTS[name.partition(".")[0]]
        weights = {path: sha for path, sha in self.sources.items() if path.startswith(prefix)}
        content = json.dumps([self.graphs[name], weights], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def write(self, path: Path) -> None:
        """Writes the manifest as JSON."""
        text = json.dumps(dataclasses.asdict(self), indent=2) + "\n"
        path.write_text(text, encoding="utf-8")


@dataclass(frozen=True, eq=False)
class Model:
    """An opened model folder.

    Args:
        folder: where it lies.
        manifest: its manifest.
        schedule: its training noise schedule.
    """

    folder: Path
    manifest: Manifest
    schedule: NoiseSchedule

    @cached_property
    def tokenizer(self) -> PromptTokenizer:
        """The model's tokenizer, opened at first use."""
        return PromptTokenizer(
            self.folder / "tokenizer" / "tokenizer.json",
            num_tokens=self.manifest.num_tokens,
            pad_token_id=self.manifest.pad_token_id,
        )

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that name the model's content."""
        content = dataclasses.asdict(self.manifest)
        del content["name"]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def graph_path(self, stage: str, dtype: str = "fp32") -> Path:
        """Returns the file of one stage's graph.

        Args:
            stage: one of `GRAPHS`.
            dtype: what its network computes in, one of `GRAPH_DTYPES`.

        Raises:
            ModelError: the model was exported without that type.
        """
        path = graph_path(self.folder, stage, dtype)
        if path.stem not in self.manifest.graphs:
            raise ModelError(
                f"model '{self.manifest.name}' has no {dtype} {stage} graph: export the model again"
            )
        return path

    def spec(self, stage: str) -> GraphSpec:
        """Returns the contract of one stage's graph, with this model's widths."""
        return graph_spec(self.manifest, stage)

    def check_size(self, size: tuple[int, int] | None) -> tuple[int, int]:
        """Returns the picture size to render, the model's own for None.

        Raises:
            SettingsError: the size is not a multiple of what the model needs.
        """
        width, height = size or self.manifest.size
        multiple = self.manifest.size_multiple
        if width % multiple or height % multiple:
            units = (max(1, round(side / multiple)) for side in (width, height))
            near = "x".join(str(unit * multiple) for unit in units)
            raise SettingsError(
                f"size {width}x{height} does not suit model '{self.manifest.name}': expected "
                f"multiples of {multiple} pixels, such as {near}"
            )
        return width, height


def graph_path(folder: Path, stage: str, dtype: str = "fp32") -> Path:
    """Returns where a model folder keeps one stage's graph; see `Model.graph_path`."""
    return folder / (f"{stage}.onnx" if dtype == "fp32" else f"{stage}.{dtype}.onnx")


def graph_names(dtypes: Iterable[str] = GRAPH_DTYPES) -> list[str]:
    """Returns the names of all graph files of a model, without `.onnx`."""
    return [graph_path(Path(), stage, dtype).stem for stage in GRAPHS for dtype in dtypes]


def graph_spec(manifest: Manifest, stage: str) -> GraphSpec:
    """Returns the contract of one stage's graph, with a manifest's widths."""
    match stage:
        case "text":
            return text_spec(manifest.num_tokens, manifest.prompt_dim)
        case "denoise":
            return denoise_spec(manifest.num_tokens, manifest.prompt_dim, manifest.time_dim)
        case "decode":
            return decode_spec()
        case "encode":
            return encode_spec()
    raise ValueError(f"unknown stage {stage!r}")


def latent_size(size: tuple[int, int]) -> tuple[int, int]:
    """Returns (h, w) in latent pixels of a picture size (width, height)."""
    width, height = size
    return height // LATENT_SCALE, width // LATENT_SCALE


def _verify(path: Path, digest: str | None) -> None:
    """Checks that a file is the one that was exported: graphs point into weights by offset."""
    try:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        raise ModelError(f"{path} is missing: export the model again") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None
    if found != digest:
        raise ModelError(f"{path} is not the file that was exported: export the model again")


def load_model(folder: Path) -> Model:
    """Opens a model folder, and reads its files once to see that they are what was exported.

    Raises:
        ModelError: the folder or one of its files is missing, or is not what this version reads.
    """
    if not os.path.isdir(folder):
        raise ModelError(f"model folder {folder} does not exist: expected a folder with {MANIFEST}")
    manifest = Manifest.read(folder / MANIFEST)
    config = folder / "scheduler" / "scheduler_config.json"
    try:
        entries = json.loads(config.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{config} is missing: export the model again") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{config} cannot be read: {error}; export the model again") from None
    if not isinstance(entries, dict):
        raise ModelError(f"{config} is not a scheduler's config: expected a JSON object")
    schedule = NoiseSchedule.from_config(entries)
    for name in dict.fromkeys((*GRAPHS, *manifest.graphs)):
        _verify(folder / f"{name}.onnx", manifest.graphs.get(name))
    for source, digest in manifest.sources.items():
        _verify(folder / source, digest)
    return Model(folder, manifest, schedule)
