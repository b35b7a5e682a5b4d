# Another environment's packages.
# mypy: ignore-errors
"""Optimum's half of the comparison: `make` exports and renders, `load` opens giffusion's folders.

Runs in the virtual environment that `run` makes. Pictures and noise are left as `.npy` files.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from optimum.exporters.onnx import main_export
from optimum.onnxruntime import ORTDiffusionPipeline
from pipelines import make

PROMPT = "a red house on the moon"
STEPS = {"lcm": 1}
"""LCM draws noise after all steps but the last; one step compares without it."""
GUIDANCE = 3.0


def render(pipeline: Any, family: str, noise: np.ndarray) -> np.ndarray:
    """Returns one picture (H, W, 3) in 0 … 1, from noise before the scheduler's own scale."""
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline(
        PROMPT,
        num_inference_steps=STEPS.get(family, 4),
        guidance_scale=GUIDANCE,
        latents=torch.from_numpy(noise),
        height=8 * noise.shape[2],
        width=8 * noise.shape[3],
        output_type="np",
    ).images[0]
    return np.asarray(picture)


def export(family: str, folder: Path) -> None:
    """Writes `diffusers/`, `optimum/` and both pipelines' pictures."""
    with tempfile.TemporaryDirectory() as scratch:
        pipeline = make(family, Path(scratch))
        pipeline.save_pretrained(folder / "diffusers")
    main_export(
        str(folder / "diffusers"),
        output=folder / "optimum",
        task="text-to-image",
        do_validation=False,
        no_post_process=True,
    )
    noise = np.load(folder / "noise.npy")
    np.save(folder / "diffusers.npy", render(pipeline, family, noise))
    exported = ORTDiffusionPipeline.from_pretrained(folder / "optimum")
    np.save(folder / "optimum.npy", render(exported, family, noise))


def load(family: str, folder: Path) -> None:
    """Renders giffusion's `exported/` folder with Optimum's pipeline."""
    pipeline = ORTDiffusionPipeline.from_pretrained(folder / "exported", export=False)
    np.save(folder / "exported.npy", render(pipeline, family, np.load(folder / "noise.npy")))


def main() -> None:
    """`optimum_side.py make|load FAMILY FOLDER`."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    step, family, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    if step == "make":
        export(family, folder)
    else:
        load(family, folder)


if __name__ == "__main__":
    main()
