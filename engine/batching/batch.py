"""The denoise graph with its slots: host arrays of one tick, filled and uploaded.

`pipeline.py` loads a frame into a slot, runs ticks, and hands finished latents to the decoder. A
free slot has the identity table and weight 0, so it computes nothing that anyone reads.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.batching.scheduler import Move, Slot
from giffusion.engine.conditions.conditioning import Condition
from giffusion.engine.conditions.noise import step_noise
from giffusion.engine.conditions.pictures import PictureEncoder
from giffusion.engine.contract import STATE_ROWS, TABLE_COLUMNS
from giffusion.engine.model import CONTROL, Model, latent_size
from giffusion.engine.runtimes.base import Graph, Runtime
from giffusion.engine.sampling import MAX_CACHED_TABLES, SamplerTable, sampler_table

_BY_ROW = ("cond", "pooled")
_BY_SLOT = ("state", "guidance_embed", "control", "control_scale")
"""What a frame brings, and keeps until it is done; a model's graph takes some of it."""


@dataclass(frozen=True, slots=True)
class Steps:
    """A sampler's tables as the graph takes them.

    Args:
        tables: (E, 5, 7) float32.
        scales: (E,) float32.
        time_proj: sinusoids of the timesteps, (E, C) float32.
        uses_noise: whether each evaluation adds noise.
        init_latents: factor of the init picture's latents at the start; 0 without one.
        init_noise: factor of the noise that latents start from.
    """

    tables: NDArray[np.float32]
    scales: NDArray[np.float32]
    time_proj: NDArray[np.float32]
    uses_noise: tuple[bool, ...]
    init_latents: float
    init_noise: float


class DenoiseBatch:
    """A loaded denoise graph and the frames in its slots.

    Args:
        model: the model to run.
        runtime: what runs it.
        size: (width, height) in pixels.
        num_rows: rows of the batch, and slots, since a frame takes at least one row.
    """

    def __init__(
        self, model: Model, runtime: Runtime, *, size: tuple[int, int], num_rows: int
    ) -> None:
        height, width = latent_size(size)
        spec = model.spec("denoise")
        axes = {"slots": num_rows, "rows": num_rows, "h": height, "w": width}
        self.graph: Graph = runtime.load(
            model.graph_path("denoise", runtime.graph_dtype),
            spec,
            axes,
            feedback={"next_state": "state"},
        )
        shapes = {tensor.name: tensor.resolve(axes) for tensor in spec.inputs}
        self.latent_shape = shapes["noise"][1:]
        self._table = np.zeros(shapes["table"], np.float32)
        self._table[:] = np.eye(STATE_ROWS, TABLE_COLUMNS)
        self._scale = np.zeros(shapes["scale"], np.float32)
        self._time_proj = np.zeros(shapes["time_proj"], np.float32)
        self._mix = np.zeros(shapes["mix"], np.float32)
        self._row_slot = np.zeros(shapes["row_slot"], np.int32)
        self._state = np.zeros(shapes["state"][1:], np.float32)
        self._steps: dict[int, Steps] = {}
        self._seeds: dict[int, int] = {}
        self._axes = axes
        # What frames bring besides their prompts, by the input that takes it.
        self._guidance_dim = model.manifest.guidance_dim
        self._maps = PictureEncoder(model, runtime, size, CONTROL) if model.has_control else None
        if "size_ids" in shapes:
            self.graph.write("size_ids", np.tile(size_ids(size), (num_rows, 1)))
        self._by_row = [name for name in _BY_ROW if name in shapes]
        self._by_slot = [name for name in _BY_SLOT if name in shapes]

    @property
    def num_rows(self) -> int:
        """Rows, and slots, that a run computes."""
        return self._axes["rows"]

    def load(self, slot: Slot, condition: Condition, steps: Steps, seed: int) -> None:
        """Puts a frame's start into its slot and rows; `seed` is the job's, for step noise."""
        self._state[0] = steps.init_noise * condition.noise
        if condition.init_latents is not None:
            self._state[0] += steps.init_latents * condition.init_latents
        self.graph.write("state", self._state, slot.index)
        self._mix[slot.index] = 0
        self._mix[slot.index, list(slot.rows)] = condition.mix
        self._row_slot[list(slot.rows)] = slot.index
        for name in self._by_row:
            values = condition.prompt_embeds if name == "cond" else condition.pooled
            assert values is not None, "the model's conditions have what its graph takes"
            for row, value in zip(slot.rows, values, strict=True):
                self.graph.write(name, value, row)
        if self._guidance_dim is not None:
            embed = guidance_embed(condition.guidance, self._guidance_dim)
            self.graph.write("guidance_embed", embed, slot.index)
        if self._maps is not None:
            scale = np.array(condition.control_scale, np.float32)
            self.graph.write("control_scale", scale, slot.index)
            if condition.control_map is not None:
                embedded = self._maps.run(condition.control_map)
                self.graph.copy("control", slot.index, embedded, "control", 0)
        self._steps[slot.index] = steps
        self._seeds[slot.index] = seed

    def close(self) -> None:
        """Frees the graphs."""
        self.graph.close()
        if self._maps is not None:
            self._maps.close()

    def free(self, slot: Slot) -> None:
        """Empties a slot."""
        self._table[slot.index] = np.eye(STATE_ROWS, TABLE_COLUMNS)
        self._mix[slot.index] = 0

    def resize(self, num_rows: int, moves: Collection[Move]) -> None:
        """Changes the number of rows and slots, once the frames beyond it have moved below it."""
        for move in moves:
            self._move(move)
        # An idle row may still name a slot that is no more.
        self._row_slot[self._row_slot >= num_rows] = 0
        self._axes |= {"slots": num_rows, "rows": num_rows}
        self.graph.resize(self._axes)

    def _move(self, move: Move) -> None:
        old, new = move.index, move.slot.index
        weights = self._mix[old, list(move.rows)]
        self._mix[old] = 0
        self._mix[new, list(move.slot.rows)] = weights
        self._row_slot[list(move.slot.rows)] = new
        for before, after in zip(move.rows, move.slot.rows, strict=True):
            if before != after:
                for name in self._by_row:
                    self.graph.copy(name, after, self.graph, name, before)
        if old != new:
            for name in self._by_slot:
                self.graph.copy(name, new, self.graph, name, old)
            self._steps[new], self._seeds[new] = self._steps[old], self._seeds[old]
            self._table[old] = np.eye(STATE_ROWS, TABLE_COLUMNS)

    def stage(self, active: Collection[Slot]) -> None:
        """Writes what the next run of the graph takes: every active slot's step."""
        for slot in active:
            index, step, steps = slot.index, slot.step, self._steps[slot.index]
            self._table[index] = steps.tables[step]
            self._scale[index] = steps.scales[step]
            self._time_proj[index] = steps.time_proj[step]
            if steps.uses_noise[step]:
                noise = step_noise(self._seeds[index], slot.task.frame, step, self.latent_shape)
                self.graph.write("noise", noise, index)
        num = self.num_rows
        self.graph.write("table", self._table[:num])
        self.graph.write("scale", self._scale[:num])
        self.graph.write("time_proj", self._time_proj[:num])
        self.graph.write("mix", self._mix[:num, :num])
        self.graph.write("row_slot", self._row_slot[:num])


def sampler_steps(
    model: Model, sampler: str, num_steps: int, strength: float = 1.0, eta: float = 0.0
) -> Steps:
    """Returns a sampler's steps on a model, ready for the graph.

    Args:
        model: the model.
        sampler: one of `giffusion.engine.sampler_names.SAMPLERS`.
        num_steps: steps of the whole walk.
        strength: share of it that is walked, in (0, 1].
        eta: share of DDIM's noise, 0 … 1.

    Raises:
        SettingsError: the sampler cannot take that many steps on the model, or the strength leaves
            none of them.
    """
    table = sampler_table(sampler, model.schedule, num_steps, strength, eta)
    return _steps(model, table)


# Tables are few and kept by what they are of, so that each is one object.
@lru_cache(maxsize=MAX_CACHED_TABLES)
def _steps(model: Model, table: SamplerTable) -> Steps:
    manifest = model.manifest
    return Steps(
        table.tables.astype(np.float32),
        table.scales.astype(np.float32),
        sinusoid(
            table.timesteps,
            manifest.time_dim,
            flip_sin_to_cos=manifest.flip_sin_to_cos,
            freq_shift=manifest.freq_shift,
        ),
        tuple(bool(uses) for uses in table.uses_noise),
        table.init_latents,
        table.init_noise,
    )


def sinusoid(
    timesteps: NDArray[np.float64], dim: int, *, flip_sin_to_cos: bool, freq_shift: float
) -> NDArray[np.float32]:
    """Embeds timesteps, fractional ones too, computed in float64.

    Vaswani et al., "Attention is all you need", 2017, section 3.5, as Ho et al. 2020 use it.

    Args:
        timesteps: (E,).
        dim: width of the embedding, even.
        flip_sin_to_cos: whether the cosines come first.
        freq_shift: subtracted from the number of frequencies in the exponent's divisor.

    Returns:
        (E, dim) float32.
    """
    half = dim // 2
    frequencies = np.exp(-np.log(10000.0) * np.arange(half) / (half - freq_shift))
    angles = timesteps[:, None] * frequencies
    waves = [np.sin(angles), np.cos(angles)]
    if flip_sin_to_cos:
        waves.reverse()
    return np.concatenate(waves, axis=1).astype(np.float32)


def guidance_embed(guidance: float, dim: int) -> NDArray[np.float32]:
    """Embeds a guidance scale as distilled models take it.

    Luo et al. 2023, "Latent consistency models" (arXiv:2310.04378), whose w is the scale less 1;
    the sinusoid is that of timesteps, of 1000 w, with the sines first.

    Args:
        guidance: classifier-free guidance scale.
        dim: width of the embedding, even.

    Returns:
        (dim,) float32.
    """
    scaled = np.array([1000.0 * (guidance - 1)])
    (embed,) = sinusoid(scaled, dim, flip_sin_to_cos=False, freq_shift=1)
    return np.asarray(embed, np.float32)


def size_ids(size: tuple[int, int]) -> NDArray[np.float32]:
    """Returns what SDXL is told of a picture that was neither scaled nor cropped.

    Podell et al. 2023, "SDXL" (arXiv:2307.01952), section 2.2.

    Args:
        size: (width, height) in pixels.

    Returns:
        Original height and width, crop top and left, target height and width, (6,) float32.
    """
    width, height = size
    return np.array([height, width, 0, 0, height, width], np.float32)
