"""giffusion's half of the comparison: `noise` draws it, `read` takes Optimum's folder, `render`
renders a folder of ours, `write` exports a diffusers folder with `--optimum`.

Runs in the project's environment.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.frames import Frame, PixelFormat
from giffusion.engine.model import load_model
from giffusion.engine.noise import initial_noise
from giffusion.engine.pipeline import Engine
from giffusion.engine.prompts import parse_prompts
from giffusion.engine.runtimes import open_runtime
from giffusion.engine.settings import RenderSettings
from giffusion.engine.timeline import Timeline
from giffusion.export.optimum.read import export_optimum

PROMPT = "a red house on the moon"
SAMPLERS = {"sd1": "ddim", "sd2": "euler", "lcm": "lcm", "sdxl": "euler"}
SIZE = (192, 128)
SEED = 7
STEPS = {"lcm": 1}
"""LCM draws noise after all steps but the last; one step compares without it."""


class _OneFrame:
    """Keeps the frame of a job."""

    pixel_format = PixelFormat.RGB24
    on_device = False
    backlog = 0
    picture: NDArray[np.uint8]

    def write(self, index: int, frame: Frame) -> None:
        assert index == 0
        assert isinstance(frame, np.ndarray)
        self.picture = frame


def render(model_folder: Path, family: str, runtime: str) -> NDArray[np.uint8]:
    """Renders one frame, (H, W, 3)."""
    settings = RenderSettings(
        steps=STEPS.get(family, 4), sampler=SAMPLERS[family], guidance=3.0, size=SIZE
    )
    frame = _OneFrame()
    timeline = Timeline(parse_prompts(f"0: {PROMPT} --seed {SEED}"), settings)
    with Engine(
        load_model(model_folder), open_runtime(runtime, "fp32"), batch=2, size=SIZE
    ) as engine:
        job = engine.submit("job", timeline, settings, frame)
        engine.run()
    if job.error is not None:
        raise job.error
    return frame.picture


def main() -> None:
    """`giffusion_side.py noise|read|write|render FAMILY FOLDER`."""
    step, family, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    if step == "noise":
        width, height = SIZE
        np.save(folder / "noise.npy", initial_noise(SEED, (4, height // 8, width // 8))[None])
    if step == "read":
        (folder / "read").mkdir()
        export_optimum(folder / "optimum", folder / "read", name=family)
        for runtime in ("onnxruntime", "openvino"):
            np.save(folder / f"read_{runtime}.npy", render(folder / "read", family, runtime))


if __name__ == "__main__":
    main()
