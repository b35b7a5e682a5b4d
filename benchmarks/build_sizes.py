"""`python -m benchmarks.build_sizes`: TensorRT-RTX engines of real-size models, without a GPU.

Exports each network with random half-precision weights and builds it for a GPU by name; prints
the times, the size of the plan and the peak memory. Every export and every build is a process of
its own, so that a peak is that of one thing.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import machine, write_result
from benchmarks.report import output_path, parser, print_table
from giffusion.engine.contract import GraphSpec, decode_spec, denoise_spec

PRECISION = "fp16"
STAGES = ("denoise", "decode")
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Network:
    """One engine to build.

    Args:
        name: how the table calls it.
        architecture: name in `benchmarks.architectures`.
        stage: `denoise` or `decode`.
        batches: rows, or pictures, of its static profiles.
        tiny: the decoder is TAESD's.
    """

    name: str
    architecture: str
    stage: str
    batches: tuple[int, ...]
    tiny: bool = False


NETWORKS = (
    Network("TAESD decoder 512x512", "SD15", "decode", (1, 4), tiny=True),
    Network("SD VAE decoder 512x512", "SD15", "decode", (1, 4)),
    Network("SD 1.5 UNet 512x512", "SD15", "denoise", (2, 8, 16, 32)),
    Network("SD 2.1 / turbo UNet 512x512", "SD21", "denoise", (2, 8, 16, 32)),
    Network("SDXL VAE decoder 1024x1024 (bf16)", "SDXL", "decode", (1,)),
    Network("SDXL UNet 1024x1024", "SDXL", "denoise", (2, 8)),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark, or in a process of its own one part of it."""
    options = _options(arguments)
    if options.part:
        part, name, folder = options.part
        network = next(n for n in NETWORKS if n.name == name)
        run = {"export": _export, "build": _build}[part]
        print(json.dumps(run(network, Path(folder), options.device)))
        return
    chosen = [n for n in NETWORKS if any(text in n.name for text in options.only or ("",))]
    chosen = chosen[:1] if options.quick else chosen
    rows = [_measured(network, options.device) for network in chosen]
    print_table(
        f"engines for {options.device}, {PRECISION}, random weights", list(rows[0]), _cells(rows)
    )
    result = {"benchmark": "build_sizes", "machine": machine(), "engines": rows}
    write_result(output_path("build_sizes", options), result)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    made = parser("build_sizes", "Builds engines of real-size models without a GPU.")
    made.add_argument("--device", default="sm89", help="GPU to build for (default: sm89)")
    made.add_argument("--only", nargs="+", metavar="TEXT", help="networks whose names contain it")
    made.add_argument("--part", nargs=3, help=argparse.SUPPRESS)
    return made.parse_args(arguments)


def _measured(network: Network, device: str) -> dict[str, object]:
    print(f"{network.name}: exporting", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        exported = _in_a_process("export", network, folder, device)
        print(f"{network.name}: building {network.batches}", flush=True)
        built = _in_a_process("build", network, folder, device)
    return asdict(network) | {"device": device} | exported | built


def _in_a_process(part: str, network: Network, folder: str, device: str) -> dict[str, object]:
    command = [sys.executable, "-m", "benchmarks.build_sizes", "--device", device]
    done = subprocess.run(
        [*command, "--part", part, network.name, folder], stdout=subprocess.PIPE, check=False
    )
    if done.returncode:
        return {f"{part}_failed": f"exit status {done.returncode}"}
    values: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return values


def _export(network: Network, folder: Path, device: str) -> dict[str, object]:
    """Traces the fused graph; its weights lie in a folder as a checkpoint's do."""
    import torch

    from benchmarks import architectures
    from giffusion.export.onnx import export_graph
    from giffusion.export.stages import shapes_of_stage, stage_weights

    architecture: architectures.Architecture = getattr(architectures, network.architecture)
    wide = bool((architecture.vae or {}).get("force_upcast")) and not network.tiny
    dtype = torch.bfloat16 if network.stage == "decode" and wide else torch.float16
    part: Any
    if network.stage == "denoise":
        part, home = architecture.make_unet(dtype), folder / "unet"
    else:
        part, home = architecture.make_vae(dtype, tiny=network.tiny), folder / "vae"
        # Whether the autoencoder overflows in half precision is the UNet's family's matter.
        (folder / "unet").mkdir()
        (folder / "unet" / "config.json").write_text(json.dumps(architecture.unet))
    part.save_pretrained(home, max_shard_size="100GB")
    del part
    weights = stage_weights(folder, network.stage)
    seconds = _timed(
        lambda: export_graph(
            shapes_of_stage(folder, network.stage, PRECISION),
            _spec(network),
            path=folder / "graph.onnx",
            weights=weights,
            side_multiple=architecture.size_multiple // 8,
        )
    )
    return {
        "weights_gib": round(sum(tensor.length for tensor in weights.values()) / GIB, 3),
        "export_s": seconds,
        "export_peak_gib": _peak_gib(),
    }


def _build(network: Network, folder: Path, device: str) -> dict[str, object]:
    from giffusion.engine.runtimes.tensorrt.build import build_engine, parse_graph
    from giffusion.engine.runtimes.tensorrt.package import TensorRtPackage

    package = TensorRtPackage("tensorrt-rtx")
    path = folder / "graph.onnx"
    builder = package.trt.Builder(package.logger)
    parse_s = _timed(lambda: parse_graph(package, builder, path))
    side = _architecture_side(network) // 8
    plans: list[int] = []

    def build() -> None:
        axes = ({_axis(network): batch, "h": side, "w": side} for batch in network.batches)
        shapes = [{**sizes, "slots": sizes.get("rows", 1)} for sizes in axes]
        plan = build_engine(package, path, _spec(network), shapes, [device], None, _unreported)
        plans.append(len(plan))

    seconds = _timed(build)
    return {
        "parse_s": parse_s,
        "build_s": seconds,
        "plan_gib": round(plans[0] / GIB, 3),
        "build_peak_gib": _peak_gib(),
        "package": f"{package.name} {package.version}",
    }


def _spec(network: Network) -> GraphSpec:
    from benchmarks import architectures

    if network.stage == "decode":
        return decode_spec()
    made: architectures.Architecture = getattr(architectures, network.architecture)
    return denoise_spec(made.num_tokens, made.prompt_dim, made.time_dim, made.pooled_dim)


def _architecture_side(network: Network) -> int:
    from benchmarks import architectures

    return int(getattr(architectures, network.architecture).side)


def _axis(network: Network) -> str:
    return "rows" if network.stage == "denoise" else "images"


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return round(time.perf_counter() - began, 1)


def _peak_gib() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB, 2)


def _unreported(label: str, done: int, total: int) -> None:
    """Takes progress that nobody watches."""


def _cells(rows: Sequence[dict[str, object]]) -> list[list[object]]:
    return [[row.get(key, "") for key in rows[0]] for row in rows]


if __name__ == "__main__":
    main()
