"""Checkpoints of the small pipelines without files, for tests of editors, and back again."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from giffusion.export.checkpoint.checkpoint import Checkpoint, Part, Vocabulary
from giffusion.export.checkpoint.tensors import Array, Computed

DTYPES = {
    torch.float32: ir.DataType.FLOAT,
    torch.float16: ir.DataType.FLOAT16,
    torch.bfloat16: ir.DataType.BFLOAT16,
}
_PARTS = ("text_encoder", "text_encoder_2", "unet", "vae")


def checkpoint_of(pipeline: Any, name: str = "small") -> Checkpoint:
    """Returns a pipeline as a checkpoint, whose tensors are read from its modules."""
    modules = {part: getattr(pipeline, part, None) for part in _PARTS}
    tokenizers = {part: getattr(pipeline, part, None) for part in ("tokenizer", "tokenizer_2")}
    return Checkpoint(
        name=name,
        pipeline=dict(pipeline.config),
        scheduler=dict(pipeline.scheduler.config),
        parts={part: part_of(module) for part, module in modules.items() if module is not None},
        vocabularies={part: vocabulary_of(t) for part, t in tokenizers.items() if t is not None},
        sources={},
    )


def part_of(module: Any) -> Part:
    """Returns one network as a part, with `text_model.` where transformers leaves it out."""
    config = module.config.to_dict() if hasattr(module.config, "to_dict") else dict(module.config)
    return Part(config, {_canonical(name): _tensor(t) for name, t in module.state_dict().items()})


def vocabulary_of(tokenizer: Any) -> Vocabulary:
    """Returns transformers' tokenizer as a vocabulary."""
    config = {"eos_token": tokenizer.eos_token, "pad_token": tokenizer.pad_token}
    return Vocabulary(json.loads(tokenizer.backend_tokenizer.to_str()), config)


def load(module: Any, part: Part) -> None:
    """Puts a part's weights into a module of the part's shapes."""
    names = {_canonical(name): name for name in module.state_dict()}
    weights = {names[name]: _torch(tensor.read()) for name, tensor in part.tensors.items()}
    module.load_state_dict(weights)


def _canonical(name: str) -> str:
    return re.sub(r"^(?=embeddings\.|encoder\.layers|final_layer_norm)", "text_model.", name)


def _tensor(tensor: torch.Tensor) -> Computed:
    return Computed(DTYPES[tensor.dtype], tuple(tensor.shape), partial(_array, tensor))


def _array(tensor: torch.Tensor) -> Array:
    if tensor.dtype == torch.bfloat16:
        bits = tensor.detach().contiguous().view(torch.int16).numpy()
        return bits.view(ir.DataType.BFLOAT16.numpy())
    return np.asarray(tensor.detach().numpy())


def _torch(array: Array) -> torch.Tensor:
    if array.dtype == ir.DataType.BFLOAT16.numpy():
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())
