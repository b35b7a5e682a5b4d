"""What `benchmarks.export` runs in processes of their own: one evaluation, and the peer's export.

Called with a step's name and its files. Each offers itself to the system to be ended first, should
memory run out.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from giffusion.engine.contract import LATENT_SCALE
from giffusion.engine.model import load_model
from giffusion.engine.runtimes import open_runtime
from giffusion.export.graphs import example_axes, example_inputs
from giffusion.export.quiet import quiet_diffusers
from giffusion.export.stages import load_stage

SIDE = 256
"""Width and height in pixels of the one evaluation."""


def onnxruntime_step(folder: Path, output: Path) -> None:
    """Loads the denoise graph, whose weights are external data, and runs it once."""
    model = load_model(folder)
    spec, side = model.spec("denoise"), SIDE // LATENT_SCALE
    path = model.graph_path("denoise", "fp32")
    began = time.perf_counter()
    graph = open_runtime("onnxruntime", "fp32").load(path, spec, example_axes(side))
    _tell("loaded", began)
    for name, value in example_inputs(spec, side=side).items():
        graph.write(name, value.numpy())
    began = time.perf_counter()
    graph.run()
    _tell("run", began)
    np.save(output, graph.read(spec.outputs[0].name))
    graph.close()


def torch_step(folder: Path, output: Path) -> None:
    """Runs the denoise stage once as the torch module that it was traced from."""
    spec = load_model(folder).spec("denoise")
    began = time.perf_counter()
    module = load_stage(folder, "denoise")
    _tell("loaded", began)
    began = time.perf_counter()
    with torch.no_grad():
        result: torch.Tensor = module(**example_inputs(spec, side=SIDE // LATENT_SCALE))
    _tell("run", began)
    np.save(output, result.numpy())


def compare(got: Path, expected: Path) -> None:
    """Prints the largest difference as a share of the largest value."""
    values, right = np.load(got), np.load(expected)
    if not np.isfinite(values).all():
        sys.exit("the step's result is not finite")
    print(f"largest error {np.abs(values - right).max() / np.abs(right).max():.2g}")


def peer(folder: Path, output: Path) -> None:
    """Loads a pipeline in fp32 and exports its plain UNet, as diffusers' users do."""
    from diffusers import StableDiffusionPipeline

    with quiet_diffusers():
        pipeline = StableDiffusionPipeline.from_pretrained(
            folder, torch_dtype=torch.float32, safety_checker=None
        )
    unet = pipeline.unet.eval()
    side, tokens = unet.config.sample_size, pipeline.tokenizer.model_max_length
    batch = torch.export.Dim("batch")
    multiple = 2 ** (len(unet.config.block_out_channels) - 1)
    height, width = (multiple * torch.export.Dim(f"{axis}_units", max=128) for axis in "hw")
    inputs = {
        "sample": torch.randn(2, 4, side, side),
        "timestep": torch.tensor(1.0),
        "encoder_hidden_states": torch.randn(2, tokens, unet.config.cross_attention_dim),
    }
    shapes = {
        "sample": {0: batch, 2: height, 3: width},
        "timestep": None,
        "encoder_hidden_states": {0: batch},
        "return_dict": None,
    }
    with torch.no_grad():
        torch.onnx.export(
            unet,
            kwargs={**inputs, "return_dict": False},
            f=output,
            dynamo=True,
            dynamic_shapes=shapes,
            external_data=True,
            verbose=False,
        )


_RUN: dict[str, Callable[[Path, Path], None]] = {
    "onnxruntime": onnxruntime_step,
    "torch": torch_step,
    "compare": compare,
    "peer": peer,
}


def _tell(what: str, began: float) -> None:
    print(f"{what} in {time.perf_counter() - began:.1f} s", flush=True)


if __name__ == "__main__":
    Path("/proc/self/oom_score_adj").write_text("1000", encoding="utf-8")
    _RUN[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
