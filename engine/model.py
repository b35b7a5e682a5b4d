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

from giffusion.engine.conditions.tokenizer import PromptTokenizer
from giffusion.engine.contract import (
    LATENT_SCALE,
    GraphSpec,
    control_spec,
    decode_spec,
    denoise_spec,
    encode_spec,
    text_spec,
)
from giffusion.engine.digests import sha256
from giffusion.engine.errors import ModelError, SettingsError
from giffusion.engine.manifest import GRAPH_DTYPES, MANIFEST, Manifest
from giffusion.engine.schedule import NoiseSchedule

TOKENIZERS = ("tokenizer", "tokenizer_2")
"""The folders of the text encoders' tokenizers."""
GRAPHS = ("text", "denoise", "decode", "encode")
"""The stages that every model has."""
CONTROL = "control"
"""The stage that a model with a ControlNet has besides."""


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

    @property
    def guides(self) -> bool:
        """Whether the model takes the guidance scale itself, as LCM does."""
        return self.manifest.guidance_dim is not None

    @property
    def has_control(self) -> bool:
        """Whether the model has a ControlNet, whose maps steer frames."""
        return self.manifest.control_dim is not None

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that the model has a graph of."""
        return stages_of(self.manifest)

    @property
    def tokenizer(self) -> PromptTokenizer:
        """The model's tokenizer, of the first text encoder where there are two."""
        return self.tokenizers[0]

    @cached_property
    def tokenizers(self) -> tuple[PromptTokenizer, ...]:
        """The tokenizers of the text encoders, opened at first use."""
        return tuple(
            PromptTokenizer(
                self.folder / folder / "tokenizer.json",
                num_tokens=self.manifest.num_tokens,
                pad_token_id=pad_token_id,
                token_vectors=self.manifest.token_vectors,
            )
            for folder, pad_token_id in zip(TOKENIZERS, self.manifest.pad_token_ids, strict=False)
        )

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that name the model's content."""
        content = dataclasses.asdict(self.manifest)
        del content["name"], content["origin"]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def graph_path(self, stage: str, dtype: str = "fp32") -> Path:
        """Returns the file of one stage's graph.

        Args:
            stage: one of `stages`.
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


def stages_of(manifest: Manifest) -> tuple[str, ...]:
    """Returns the stages that a model with a manifest has a graph of."""
    return GRAPHS if manifest.control_dim is None else (*GRAPHS, CONTROL)


def graph_spec(manifest: Manifest, stage: str) -> GraphSpec:
    """Returns the contract of one stage's graph, with a manifest's widths."""
    match stage:
        case "text":
            return text_spec(manifest.num_tokens, manifest.prompt_dim, manifest.pooled_dim)
        case "denoise":
            return denoise_spec(
                manifest.num_tokens,
                manifest.prompt_dim,
                manifest.time_dim,
                manifest.pooled_dim,
                manifest.guidance_dim,
                manifest.control_dim,
            )
        case "decode":
            return decode_spec()
        case "encode":
            return encode_spec()
        case "control" if manifest.control_dim is not None:
            return control_spec(manifest.control_dim)
    raise ValueError(f"unknown stage {stage!r}")


def latent_size(size: tuple[int, int]) -> tuple[int, int]:
    """Returns (h, w) in latent pixels of a picture size (width, height)."""
    width, height = size
    return height // LATENT_SCALE, width // LATENT_SCALE


def _verify(path: Path, digest: str | None) -> None:
    """Checks that a file is the one that was exported: graphs point into weights by offset."""
    try:
        found = sha256(path)
    except FileNotFoundError:
        raise ModelError(f"{path} is missing: export the model again") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None
    if found != digest:
        raise ModelError(f"{path} is not the file that was exported: export the model again")


def load_model(folder: Path) -> Model:
    """Opens a model folder, and sees that its files are what was exported; `digests.py` says how.

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
    for name in dict.fromkeys((*stages_of(manifest), *manifest.graphs)):
        _verify(folder / f"{name}.onnx", manifest.graphs.get(name))
    for source, digest in manifest.sources.items():
        _verify(folder / source, digest)
    return Model(folder, manifest, schedule)
