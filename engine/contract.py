"""The tensors of the fused graphs, the same on every runtime.

`giffusion.export` writes graphs with these names, axes and types; the engine fills and reads
them; a runtime only moves them. Symbolic axes are strings: `slots`, `rows`, `images`, `prompts`,
and `h`, `w` in latent pixels (`8*h`, `8*w` in picture pixels).

The invariant of the denoise graph: state, scale, mix, table and noise are float32 and the two
sums are multiply + reduce-sum, so an identity table returns the state bit for bit, whatever the
precision inside the UNet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LATENT_CHANNELS = 4
LATENT_SCALE = 8
"""Picture pixels along one side of a latent pixel."""
STATE_ROWS = 5
"""Rows of a slot's state: row 0 the latents, the others a sampler's history."""
TABLE_COLUMNS = STATE_ROWS + 2
"""Columns of a step's table: the state's rows, the model's output, fresh noise."""
NUM_SIZE_IDS = 6
"""What SDXL is told of a picture: its original height and width, crop top and left, target size."""

Axis = int | str


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, type and shape of one tensor; an axis is a number, or a name where it varies."""

    name: str
    dtype: str
    shape: tuple[Axis, ...]

    def resolve(self, axes: Mapping[str, int]) -> tuple[int, ...]:
        """Returns the shape with every named axis replaced by its size."""
        return tuple(axis if isinstance(axis, int) else _size(axis, axes) for axis in self.shape)


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """The inputs and outputs of one fused graph."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def _size(axis: str, axes: Mapping[str, int]) -> int:
    factor, _, name = axis.rpartition("*")
    return int(factor or 1) * axes[name]


def text_spec(num_tokens: int, prompt_dim: int, pooled_dim: int | None = None) -> GraphSpec:
    """Token ids to prompt embeddings: `input_ids → prompt_embeds`.

    SDXL has two text encoders, whose tokenizers pad differently, and pools the second one's
    output: `input_ids, input_ids_2 → prompt_embeds, pooled`.

    Args:
        num_tokens: tokens a prompt.
        prompt_dim: width of the prompt embeddings, of both encoders together.
        pooled_dim: width of SDXL's pooled prompt embedding; None for other models.
    """
    ids = [TensorSpec("input_ids", "int32", ("prompts", num_tokens))]
    embeds = [TensorSpec("prompt_embeds", "float32", ("prompts", num_tokens, prompt_dim))]
    if pooled_dim is not None:
        ids.append(TensorSpec("input_ids_2", "int32", ("prompts", num_tokens)))
        embeds.append(TensorSpec("pooled", "float32", ("prompts", pooled_dim)))
    return GraphSpec("text", tuple(ids), tuple(embeds))


def denoise_spec(
    num_tokens: int,
    prompt_dim: int,
    time_dim: int,
    pooled_dim: int | None = None,
    guidance_dim: int | None = None,
    control_dim: int | None = None,
) -> GraphSpec:
    """One evaluation of the model for every row and one sampler step for every slot.

    With x = scale · state[:, 0] and ε the model's output for a row's slot and condition:
    `state' = table @ [state; Σ_rows mix · ε; noise]`.

    Args:
        num_tokens: tokens a prompt.
        prompt_dim: width of the prompt embeddings.
        time_dim: width of the timestep's sinusoid.
        pooled_dim: width of SDXL's pooled prompt embedding, which comes with six size ids (original
            height and width, crop top and left, target height and width); None for other models.
        guidance_dim: width of the guidance scale's sinusoid, which distilled models (LCM) take;
            None for other models.
        control_dim: width of a map's embedding, which a model with a ControlNet takes with its
            scale; None for other models.
    """
    latent = (LATENT_CHANNELS, "h", "w")
    more: tuple[TensorSpec, ...] = ()
    if pooled_dim is not None:
        more += (
            TensorSpec("pooled", "float32", ("rows", pooled_dim)),
            TensorSpec("size_ids", "float32", ("rows", NUM_SIZE_IDS)),
        )
    if guidance_dim is not None:
        more += (TensorSpec("guidance_embed", "float32", ("slots", guidance_dim)),)
    if control_dim is not None:
        more += (
            TensorSpec("control", "float32", ("slots", control_dim, "h", "w")),
            TensorSpec("control_scale", "float32", ("slots",)),
        )
    return GraphSpec(
        "denoise",
        (
            TensorSpec("state", "float32", ("slots", STATE_ROWS, *latent)),
            TensorSpec("scale", "float32", ("slots",)),
            TensorSpec("time_proj", "float32", ("slots", time_dim)),
            TensorSpec("row_slot", "int32", ("rows",)),
            TensorSpec("cond", "float32", ("rows", num_tokens, prompt_dim)),
            TensorSpec("mix", "float32", ("slots", "rows")),
            TensorSpec("table", "float32", ("slots", STATE_ROWS, TABLE_COLUMNS)),
            TensorSpec("noise", "float32", ("slots", *latent)),
            *more,
        ),
        (TensorSpec("next_state", "float32", ("slots", STATE_ROWS, *latent)),),
    )


def decode_spec() -> GraphSpec:
    """Latents, scaled as the UNet sees them, to bytes: RGB, and the same pictures as NV12."""
    return GraphSpec(
        "decode",
        (TensorSpec("latents", "float32", ("images", LATENT_CHANNELS, "h", "w")),),
        (
            TensorSpec("rgb", "uint8", ("images", "8*h", "8*w", 3)),
            TensorSpec("nv12", "uint8", ("images", "12*h", "8*w")),
        ),
    )


def encode_spec() -> GraphSpec:
    """RGB bytes to latents, scaled as the UNet sees them."""
    return GraphSpec(
        "encode",
        (TensorSpec("rgb", "uint8", ("images", "8*h", "8*w", 3)),),
        (TensorSpec("latents", "float32", ("images", LATENT_CHANNELS, "h", "w")),),
    )


def control_spec(control_dim: int) -> GraphSpec:
    """A ControlNet's maps, RGB bytes, to what its blocks begin with.

    Args:
        control_dim: width of a map's embedding.
    """
    return GraphSpec(
        "control",
        (TensorSpec("rgb", "uint8", ("images", "8*h", "8*w", 3)),),
        (TensorSpec("control", "float32", ("images", control_dim, "h", "w")),),
    )
