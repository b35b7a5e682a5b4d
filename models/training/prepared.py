"""The prepared corpus on disk: a small folder that is made once and read where the GPU is.

`prepare` writes it and the training and the evaluation call `load_prepared`. The folder holds
`pictures.webp` (files end to end) with `corpus.npz` (their lengths, scenes, token ids),
`corpus.json` (names and captions of the evaluation), `tokenizer/` and `others.npz` (pictures by
another hand, for the judge). The invariant: everything
random was drawn before it was written.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor

from giffusion.engine.errors import InputError
from giffusion.models.training.scenes import Scenes
from giffusion.models.training.tokens import load_tokenizer, save_tokenizer, token_ids

SIDE = 256
"""Pixels of a picture's sides."""

_PICTURES, _ARRAYS, _TEXT, _TOKENIZER = "pictures.webp", "corpus.npz", "corpus.json", "tokenizer"
_OTHERS = "others.npz"


@dataclass(frozen=True, slots=True)
class Question:
    """A caption of the evaluation.

    Attributes:
        caption: what the model is asked for.
        accepted: numbers of the pictures that answer it; for two things, the first's.
        also: numbers of the pictures that answer its second thing, empty if it names one.
        group: what it tests: `name`, `phrase`, `word`, `colour`, `ground`, `pair`.
        colour: the colour that the thing shall have, empty for its own colours.
        ground: the colour that the background shall have, empty for any.
    """

    caption: str
    accepted: tuple[int, ...]
    also: tuple[int, ...] = ()
    group: str = "name"
    colour: str = ""
    ground: str = ""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A corpus in memory.

    Attributes:
        pixels: (n, 256, 256, 4) uint8 RGBA.
        names: n names.
        scenes: the training's scenes.
        token_ids: (len(scenes), 24) int16; an empty caption is `<s>` and then `</s>` only.
        tokenizer: its folder.
        questions: captions of the evaluation, none of them among the training's.
    """

    pixels: Tensor
    names: list[str]
    scenes: Scenes
    token_ids: Tensor
    tokenizer: Path
    questions: tuple[Question, ...]

    @property
    def empty_ids(self) -> Tensor:
        """(24,) int16, the empty caption."""
        return torch.from_numpy(token_ids(load_tokenizer(self.tokenizer), [""])[0])


def save_prepared(
    folder: Path,
    pictures: Sequence[bytes],
    names: Sequence[str],
    scenes: Scenes,
    captions: Sequence[str],
    questions: Sequence[Question],
    tokenizer: Tokenizer,
) -> None:
    """Writes a corpus; captions are stored as token ids, each different one once."""
    folder.mkdir(parents=True, exist_ok=True)
    save_tokenizer(tokenizer, folder / _TOKENIZER)
    (folder / _PICTURES).write_bytes(b"".join(pictures))
    text = {"names": list(names), "questions": [asdict(question) for question in questions]}
    (folder / _TEXT).write_text(json.dumps(text, ensure_ascii=False, indent=0) + "\n")
    different, which = np.unique(np.array(captions), return_inverse=True)
    arrays: dict[str, NDArray[np.generic]] = {
        field.name: getattr(scenes, field.name).numpy() for field in fields(Scenes)
    }
    # Written last, and whole or not at all: what `holds_corpus` looks for.
    part = folder / f"part-{_ARRAYS}"
    np.savez_compressed(
        part,
        lengths=np.array([len(picture) for picture in pictures], np.int32),
        tokens=token_ids(tokenizer, different.tolist()),
        caption=which.astype(np.int32),
        **arrays,  # type: ignore[arg-type]  # numpy types the keywords as the flag that it adds
    )
    part.replace(folder / _ARRAYS)


def holds_corpus(folder: Path) -> bool:
    """Whether a folder holds a whole corpus."""
    return (folder / _ARRAYS).is_file()


def load_prepared(folder: Path) -> Prepared:
    """Reads a corpus and decodes its pictures, on all cores.

    Raises:
        InputError: the folder holds no corpus.
    """
    if not holds_corpus(folder):
        raise InputError(f"{folder}: no {_ARRAYS}: make the corpus with train.py --prepare")
    with np.load(folder / _ARRAYS) as file:
        arrays = dict(file)
    text = json.loads((folder / _TEXT).read_text())
    scenes = Scenes(*(torch.from_numpy(arrays[field.name]) for field in fields(Scenes)))
    return Prepared(
        pixels=torch.from_numpy(_decode((folder / _PICTURES).read_bytes(), arrays["lengths"])),
        names=text["names"],
        scenes=scenes,
        token_ids=torch.from_numpy(arrays["tokens"][arrays["caption"]]),
        tokenizer=folder / _TOKENIZER,
        questions=tuple(_question(entry) for entry in text["questions"]),
    )


def save_others(folder: Path, pictures: Sequence[bytes]) -> None:
    """Writes the same things as drawn by another hand, which only the judge sees."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / _OTHERS, pixels=np.stack([_open(one) for one in pictures]))


def load_others(folder: Path) -> Tensor | None:
    """(n, 64, 64, 4) uint8 RGBA, in the order of the names; None if there are none."""
    if not (folder / _OTHERS).is_file():
        return None
    with np.load(folder / _OTHERS) as file:
        return torch.from_numpy(file["pixels"])


def resized(pixels: Tensor, side: int) -> Tensor:
    """(n, s, s, 4) uint8 RGBA pictures as (n, side, side, 4), their edges not darkened.

    Colours count by their opacity, as what is transparent has none.
    """
    if pixels.shape[1] == side:
        return pixels
    parts = []
    for part in torch.split(pixels, 64):
        source = part.permute(0, 3, 1, 2).float() / 255
        alpha = source[:, 3:]
        both = F.interpolate(
            torch.cat([source[:, :3] * alpha, alpha], 1),
            (side, side),
            mode="bilinear",
            antialias=True,
        )
        rgb = both[:, :3] / both[:, 3:].clamp(min=1 / 255)
        rgba = torch.cat([rgb, both[:, 3:]], 1).clamp(0, 1)
        parts.append((rgba * 255).round().byte().permute(0, 2, 3, 1))
    return torch.cat(parts)


def _question(entry: dict[str, object]) -> Question:
    values = {key: tuple(one) if isinstance(one, list) else one for key, one in entry.items()}
    return Question(**values)  # type: ignore[arg-type]  # as `asdict` wrote them


def _decode(data: bytes, lengths: NDArray[np.int32]) -> NDArray[np.uint8]:
    """(n, 256, 256, 4); Pillow's decoder lets other threads run."""
    ends = np.cumsum(lengths)
    pieces = [data[end - length : end] for end, length in zip(ends, lengths, strict=True)]
    with ThreadPoolExecutor() as threads:
        return np.stack(list(threads.map(_rgba, pieces)))


def _rgba(data: bytes) -> NDArray[np.uint8]:
    """(SIDE, SIDE, 4), the middle of the few that are a little higher."""
    pixels = _open(data)
    top = (len(pixels) - SIDE) // 2
    return pixels[top : top + SIDE]


def _open(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGBA"))
