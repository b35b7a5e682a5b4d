"""A Stable Diffusion model in one file, in the original layout of CompVis, Stability and SGM.

`read_single_file` is one of the readers that `giffusion export` chooses from. The invariant: every
tensor of the file is used, or is skipped because its meaning is known; nothing but the header is
read.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from giffusion.engine.errors import ModelError, one_line
from giffusion.export.checkpoint.checkpoint import Checkpoint
from giffusion.export.checkpoint.tensors import DTYPES, StoredTensor, read_header, stored_tensors
from giffusion.export.checkpoint.vocabularies import openai_vocabulary
from giffusion.export.originals.convert import original_parts
from giffusion.export.originals.published import PAD_TOKENS
from giffusion.export.originals.unet import COND_PROJ, UNET_PREFIX
from giffusion.export.originals.unsupported import family
from giffusion.export.originals.variants import Hints, check_prediction, configurations
from giffusion.export.pickles.convert import is_pickle, refuse_pickle

_SKIPPED = re.compile(
    # The moving average of training beside the weights, and what other tools keep in the file.
    r"model_ema\..*|embedding_manager\..*|optimizer_states\..*"
    # The noise schedule, which the scheduler's configuration describes.
    r"|betas|alphas_cumprod(_prev)?|sqrt_(one_minus_|recip_|recipm1_)?alphas_cumprod"
    r"|log_one_minus_alphas_cumprod|posterior_(variance|log_variance_clipped|mean_coef[12])"
    r"|lvlb_weights|logvar|scale_factor|denoiser\.(sigmas|log_sigmas)"
    # Counters, and marks that `variants.py` reads by name.
    r"|global_step|epoch|v_pred|ztsnr"
    # Constants and outputs of CLIP that no text encoder here has.
    r"|(.*\.)?position_ids|(.*\.)?logit_scale|(.*\.)?attn_mask"
    # The discriminator that an autoencoder was trained with.
    r"|first_stage_model\.loss\..*"
)
_STEP = "global_step"


@dataclass(frozen=True, slots=True)
class _Header:
    """What a safetensors file's header says beside what `stored_tensors` lists."""

    metadata: Mapping[str, str]
    dtypes: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    global_step: int | None


def is_original_layout(path: Path) -> bool:
    """Tells whether a safetensors file is a model, or a UNet, in the original layout.

    Raises:
        ModelError: the file is not in safetensors' format.
    """
    return any(tensor.name.startswith(UNET_PREFIX) for tensor in stored_tensors(path))


def read_single_file(path: Path, *, prediction: str | None = None) -> Checkpoint:
    """Reads a checkpoint of SD 1.x, SD 2.x, SDXL base, or an LCM or turbo model of these.

    Configurations are the published ones of the family, which the names and shapes tell. Of models
    of one shape, what the file says of itself decides, then its name: see `variants.py`.

    Args:
        path: a `.safetensors` file.
        prediction: `epsilon` or `v_prediction`, where the model is known better than by the file.

    Returns:
        The checkpoint, its tensors still in the file, with CLIP's own vocabularies.

    Raises:
        ModelError: the file is of another kind, which the message names, or not complete.
        SettingsError: there is no such prediction type.
    """
    check_prediction(prediction)
    stored, header = _open(path)
    known, otherwise = family(header.shapes)
    if known is None:
        raise ModelError(f"{path} is {otherwise}")
    tensors = _used(stored, header, path)
    hints = Hints(path.stem, header.metadata, frozenset(header.shapes), header.global_step)
    is_lcm = any(UNET_PREFIX + name in tensors for name in COND_PROJ)
    configs = configurations(known, hints, prediction, is_lcm=is_lcm)
    pipeline, scheduler = configs.pop("pipeline"), configs.pop("scheduler")
    return Checkpoint(
        name=path.stem,
        pipeline=pipeline,
        scheduler=scheduler,
        parts=original_parts(tensors, configs, str(path)),
        vocabularies={name: openai_vocabulary(pad) for name, pad in PAD_TOKENS[known].items()},
        sources={path.name: path},
    )


def _open(path: Path) -> tuple[dict[str, StoredTensor], _Header]:
    # Not `Path.is_file`, which raises for a name that is too long or may not be looked at.
    if not os.path.isfile(path):
        raise ModelError(f"{path} is missing: expected a checkpoint in one safetensors file")
    if is_pickle(path):
        refuse_pickle(path)
    try:
        return {tensor.name: tensor for tensor in stored_tensors(path)}, _header(path)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {one_line(error)}") from None


def _used(
    stored: Mapping[str, StoredTensor], header: _Header, path: Path
) -> dict[str, StoredTensor]:
    """Leaves out what is knowingly skipped, and refuses types that are no weights'."""
    used = {name: dtype for name, dtype in header.dtypes.items() if not _SKIPPED.fullmatch(name)}
    for name, dtype in used.items():
        if dtype not in DTYPES:
            kind = "fp8, which loses" if dtype.startswith("F8_") else "of a type that is not for"
            raise ModelError(
                f"{path} stores {name!r} as {dtype}, {kind} weights: expected "
                f"{', '.join(DTYPES)}; get the model in one of these"
            )
    return {name: stored[name] for name in used}


def _header(path: Path) -> _Header:
    entries, data = read_header(path)
    metadata = entries.pop("__metadata__", None)
    return _Header(
        metadata=metadata if isinstance(metadata, dict) else {},
        dtypes={name: str(entry["dtype"]) for name, entry in entries.items()},
        shapes={name: _shape(entry) for name, entry in entries.items()},
        global_step=_global_step(path, data, entries.get(_STEP)),
    )


def _shape(entry: Mapping[str, Any]) -> tuple[int, ...]:
    """Returns a tensor's shape; `stored_tensors` has not looked at those of other types."""
    shape = entry.get("shape")
    return tuple(shape) if isinstance(shape, list) else ()


def _global_step(path: Path, data: int, entry: Any) -> int | None:
    """Reads the number of training steps, where the file has it as one integer."""
    try:
        first, last = entry["data_offsets"]
        if entry["dtype"] != "I64" or last - first != 8:
            return None
        with path.open("rb") as stream:
            stream.seek(data + first)
            return int(struct.unpack("<q", stream.read(8))[0])
    except (KeyError, OSError, OverflowError, TypeError, ValueError, struct.error):
        return None  # No number that could be a count; nothing else hangs on it.
