"""giffusion's half of the comparison.

`noise` draws what all pipelines start from, `read` exports Optimum's folder and renders it, `write`
exports the diffusers folder with Optimum's graphs beside ours, `compare` prints the figures. Runs
in the project's environment.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.conditions.noise import initial_noise
from giffusion.engine.frames import Frame, PixelFormat
from giffusion.engine.model import load_model
from giffusion.engine.pipeline import Engine
from giffusion.engine.prompts import parse_prompts
from giffusion.engine.runtimes import open_runtime
from giffusion.engine.settings import RenderSettings
from giffusion.engine.timelines.timeline import Timeline
from giffusion.export.checkpoint.folder import read_folder
from giffusion.export.checkpoint.staging import staged_folder
from giffusion.export.checkpoint.write import write_checkpoint
from giffusion.export.model import export_model
from giffusion.export.optimum.read import export_optimum
from giffusion.export.optimum.write import write_optimum

PROMPT = "a red house on the moon"
SAMPLERS = {"sd1": "ddim", "sd2": "euler", "lcm": "lcm", "sdxl": "euler"}
SIZE = (192, 128)
SEED = 7
STEPS = {"lcm": 1}
"""LCM draws noise after all steps but the last; one step compares without it."""
MAX_DIFFERENCE = {True: 1.0, False: 0.01}
"""Of 255: of bytes, which may be rounded differently, and of what is not rounded yet."""


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


def write(folder: Path, family: str) -> None:
    """Makes a model folder of `diffusers/`, with Optimum's graphs."""
    with staged_folder(folder / "exported") as staged:
        checkpoint = read_folder(folder / "diffusers")
        write_checkpoint(checkpoint, staged, dtype=None, progress=print)
        manifest = export_model(staged, name=family, dtypes=("fp32",))
        write_optimum(staged, manifest)


def compare(folder: Path, family: str) -> None:
    """Prints the largest and the mean difference of each picture, of 255, and the contrast."""
    reference = 255 * np.load(folder / "diffusers.npy").astype(float)
    print(f"{family}: a picture of {SIZE[0]}x{SIZE[1]}, contrast {reference.std():.1f} of 255")
    print("  beside diffusers' picture             largest     mean")
    for what, name in (
        ("Optimum's folder, Optimum's pipeline", "optimum"),
        ("Optimum's folder, giffusion ORT", "read_onnxruntime"),
        ("Optimum's folder, giffusion OpenVINO", "read_openvino"),
        ("giffusion's folder, Optimum's pipeline", "exported"),
    ):
        picture = np.load(folder / f"{name}.npy").astype(float)
        # giffusion's pictures are bytes; the others are compared before they are rounded.
        is_bytes = name.startswith("read")
        difference = np.abs(picture - reference.round() if is_bytes else 255 * picture - reference)
        print(f"  {what:38s}{difference.max():8.5f} {difference.mean():8.5f}")
        assert difference.max() <= MAX_DIFFERENCE[is_bytes]


def main() -> None:
    """`giffusion_side.py noise|read|write|compare FAMILY FOLDER`."""
    step, family, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    if step == "noise":
        width, height = SIZE
        np.save(folder / "noise.npy", initial_noise(SEED, (4, height // 8, width // 8))[None])
    if step == "read":
        (folder / "read").mkdir()
        export_optimum(folder / "optimum", folder / "read", name=family)
        for runtime in ("onnxruntime", "openvino"):
            np.save(folder / f"read_{runtime}.npy", render(folder / "read", family, runtime))
    if step == "write":
        write(folder, family)
    if step == "compare":
        compare(folder, family)


if __name__ == "__main__":
    main()
