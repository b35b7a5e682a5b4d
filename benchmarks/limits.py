"""What a frame costs in floating-point operations, and how many the CPU can do a second.

The limit is what large matrix products reach on the same cores; a benchmark prints its share of
it. One multiplication with addition counts as two operations.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
import openvino
import torch
from diffusers.models.attention_processor import AttnProcessor
from openvino import opset13
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.workload import Workload
from giffusion.engine.model import latent_size
from giffusion.engine.runtimes.base import num_cores


@dataclass(frozen=True, slots=True)
class Cost:
    """Operations of the networks, matrix products and convolutions only.

    Args:
        row: of the UNet for one row.
        frame_decode: of the decoder for one frame.
    """

    row: int
    frame_decode: int

    def frame(self, work: Workload) -> int:
        """Returns the operations of one frame from noise to picture."""
        return self.row * work.rows_per_frame * int(work.settings.steps) + self.frame_decode


@dataclass(frozen=True, slots=True)
class Limit:
    """The most that a matrix product reached.

    Args:
        tflops: 10^12 operations a second.
        by: the library that reached it, and the side of its matrices.
    """

    tflops: float
    by: str


def count(work: Workload, pipeline: Any) -> Cost:
    """Counts a pipeline's operations at the workload's size; the pipeline is in fp32."""
    height, width = latent_size(work.size)
    latents = torch.zeros(1, pipeline.unet.config.in_channels, height, width)
    manifest = work.model.manifest
    embeds = torch.zeros(1, manifest.num_tokens, manifest.prompt_dim)
    # The fused attention of CPUs is not in the counter's tables.
    pipeline.unet.set_attn_processor(AttnProcessor())
    return Cost(
        _count(lambda: pipeline.unet(latents, 500, embeds)),
        _count(lambda: pipeline.vae.decode(latents)),
    )


def measure(precision: str, *, sides: Sequence[int], window_s: float) -> Limit:
    """Returns the best rate of square matrix products, over libraries, sizes and runs.

    Args:
        precision: what is multiplied.
        sides: sizes to try; on some CPUs the products that stay in the caches are fastest.
        window_s: least time for each.
    """
    products = {"torch": _torch_product, "openvino": _openvino_product}
    return max(
        (
            Limit(2 * side**3 / _fastest(make(precision, side), window_s) / 1e12, f"{name} {side}")
            for name, make in products.items()
            for side in sides
        ),
        key=attrgetter("tflops"),
    )


def _count(compute: Callable[[], object]) -> int:
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        compute()
    return int(counter.get_total_flops())


def _fastest(run: Callable[[], object], window_s: float) -> float:
    run()
    times: list[float] = []
    stop = time.perf_counter() + window_s
    while time.perf_counter() < stop or len(times) < 3:
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)


def _torch_product(precision: str, side: int) -> Callable[[], object]:
    torch.set_num_threads(num_cores())
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.rand(side, side).to(dtype) for _ in range(2))
    out = torch.empty(side, side, dtype=dtype)
    return lambda: torch.matmul(a, b, out=out)


def _openvino_product(precision: str, side: int) -> Callable[[], object]:
    values = np.random.default_rng(0).random((side, side), np.float32)
    left = opset13.parameter([side, side], np.float32)
    model = openvino.Model([opset13.matmul(left, opset13.constant(values), False, False)], [left])
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": num_cores(),
        "NUM_STREAMS": 1,
    }
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    request.set_input_tensor(openvino.Tensor(values.copy()))
    return lambda: request.infer()
