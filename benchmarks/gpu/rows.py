"""The rows of the GPU table: what is rendered, with which shapes, and how large batches are tried.

No row has trained weights. Shapes, types, steps and sizes are those of the models that it names,
so the work is theirs; pictures are not.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.architectures import SD15, SD21, SDXL, Architecture

_CLIP_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}
_OPEN_CLIP_H = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One workload.

    Args:
        key: how the command line calls it.
        title: how tables call it.
        architecture: shapes of UNet and autoencoder.
        text: arguments of `CLIPTextConfig`, None where the engine does not encode its texts.
        steps: evaluations a frame.
        guidance: at 1 or below one row a frame, else two.
        sampler: the engine's name.
        tiny: frames are decoded by TAESD.
        batches: numbers of frames that a batch holds, the candidates for the best.
        max_frames: frames of the longest run.
    """

    key: str
    title: str
    architecture: Architecture
    text: dict[str, Any] | None
    steps: int
    guidance: float
    sampler: str
    tiny: bool
    batches: tuple[int, ...] = field(default=(8, 16, 32))
    max_frames: int = 256

    @property
    def rows_per_frame(self) -> int:
        """Model evaluations a step of a frame."""
        return 2 if self.guidance > 1 else 1

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.architecture.side, self.architecture.side


_TURBO = Row("turbo", "SD-turbo 512x512, 1 step, TAESD", SD21, _OPEN_CLIP_H, 1, 1.0, "euler", True)
_LCM = Row("lcm", "LCM-like SD 1.5 512x512, 4 steps, TAESD", SD15, _CLIP_L, 4, 1.0, "euler", True)
_SD15 = Row(
    "sd15", "SD 1.5 512x512, 20 steps, guidance, VAE", SD15, _CLIP_L, 20, 7.5, "dpm++2m", False
)
ROWS = (
    # Long enough that the first and the last batch, where less is busy, count for little.
    replace(_TURBO, max_frames=1024),
    _LCM,
    replace(_SD15, batches=(4, 8, 16), max_frames=64),
    replace(
        _SD15,
        key="sdxl",
        title="SDXL 1024x1024, 20 steps, guidance, VAE",
        architecture=SDXL,
        text=None,
        guidance=5.0,
        batches=(1, 2, 4),
        max_frames=16,
    ),
)

_SMALL_UNET = {
    "sample_size": 4,
    "layers_per_block": 1,
    "block_out_channels": (32, 64),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 32,
    "attention_head_dim": 8,
}
_SMALL_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 4096,
    "max_position_embeddings": 24,
}
_SMALL = Architecture("small", _SMALL_UNET, side=32, num_tokens=24)
_SMALL_XL = Architecture(
    "small XL",
    {
        **_SMALL_UNET,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + 16,
    },
    side=32,
    num_tokens=24,
    pooled_dim=16,
)
QUICK_ROWS = (
    Row("turbo", "small, 1 step", _SMALL, _SMALL_TEXT, 1, 1.0, "euler", True, (2,), 8),
    Row("lcm", "small, 4 steps", _SMALL, _SMALL_TEXT, 4, 1.0, "euler", True, (2,), 4),
    Row("sd15", "small, guidance", _SMALL, _SMALL_TEXT, 3, 7.5, "dpm++2m", True, (2,), 4),
    Row("sdxl", "small XL, guidance", _SMALL_XL, None, 2, 5.0, "dpm++2m", True, (2,), 4),
)
"""The same kinds of rows in seconds on a CPU, to see that everything works."""
