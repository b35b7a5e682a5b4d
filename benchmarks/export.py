"""`python -m benchmarks.export`: what exporting models of real size takes, in time and memory.

Random weights in the shapes of SD 1.5 and SDXL, in half precision as people have them, go through
`giffusion export`; the graphs are then run and compared with the networks. The peer is diffusers'
own road, in the same run: the pipeline loaded, and its plain UNet exported by torch. Every row is a
process of its own, with its files in the page cache.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cold import COMMAND
from benchmarks.machine import machine, write_result
from benchmarks.measured import Measured, run_measured
from benchmarks.random_checkpoint import (
    random_checkpoint,
    stored_bytes,
    weights_bytes,
    write_lora,
)
from benchmarks.report import output_path, parser, print_table
from giffusion.export.checkpoint.checkpoint import Checkpoint
from giffusion.export.checkpoint.write import write_checkpoint

RANK = 16
GB = 1e9
SPARE_BYTES = 500_000_000
PEER = "diffusers: plain UNet only, fp32"
PEER_TOO_LARGE = "not run: by the ratio of SD 1.5, about 21 GB of memory"
_ROOT = Path(__file__).parent.parent
STEPS = "benchmarks.export_steps"
Row = dict[str, object]


@dataclass(frozen=True, slots=True)
class Case:
    """One way to export a model.

    Args:
        name: how the table calls it.
        options: of `giffusion export`; `LORA` stands for the LoRA's file.
        checked: how the model is then checked, `verify`, all graphs by `giffusion models verify`,
            or `step`, the denoise graph alone, by one process for each side; None for not at all.
    """

    name: str
    options: tuple[str, ...] = ()
    checked: str | None = None


@dataclass(frozen=True, slots=True)
class Size:
    """One model to export.

    Args:
        name: how the table calls it.
        family: of `giffusion.export.originals.published`.
        cases: in this order.
        peer: whether the peer is run.
        folders: what it all takes on the disk, in sizes of the checkpoint.
    """

    name: str
    family: str
    cases: tuple[Case, ...]
    peer: bool
    folders: float


SIZES = {
    "sd15": Size(
        "SD 1.5",
        "sd1",
        (
            Case("(all graphs, weights as stored)", checked="verify"),
            Case("--dtype fp32 --graphs fp32", ("--dtype", "fp32", "--graphs", "fp32")),
            Case(f"--lora (rank {RANK}) --graphs fp32", ("--lora", "LORA", "--graphs", "fp32")),
        ),
        peer=True,
        folders=3.2,
    ),
    "sdxl": Size(
        "SDXL",
        "sdxl",
        (Case("(all graphs, weights as stored)", checked="step"),),
        peer=False,
        folders=2.1,
    ),
}
QUICK = Size(
    "narrow SD 1",
    "sd1",
    (
        Case(
            f"--lora (rank {RANK}) --graphs fp32",
            ("--lora", "LORA", "--graphs", "fp32"),
            checked="step",
        ),
    ),
    peer=True,
    folders=3.2,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    options = _options(arguments)
    # Gigabytes of a run that is ended must not stay.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    size = QUICK if options.quick else SIZES[options.model]
    found = machine()
    rows = list(_measure(size, narrow=options.quick))
    header = ["", "weights, GB", "seconds", "CPU s", "peak, GB", "of it anonymous", "to weights"]
    print_table(f"{size.name}, random weights in fp16", header, [_cells(row) for row in rows])
    settings = {"model": size.name, "rank": RANK}
    result = {"benchmark": "export", "machine": found, "settings": settings, "exports": rows}
    write_result(output_path(f"export-{options.model}", options), result)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    made = parser("export", "Times exports of real size.")
    made.add_argument("--model", choices=SIZES, default="sd15", help="which (default: sd15)")
    return made.parse_args(arguments)


def _measure(size: Size, *, narrow: bool) -> Iterator[Row]:
    checkpoint = random_checkpoint(size.family, narrow=narrow)
    need = size.folders * weights_bytes(checkpoint) + SPARE_BYTES
    free = shutil.disk_usage(tempfile.gettempdir()).free
    print(f"{size.name}: {need / GB:.1f} GB of disk needed, {free / GB:.1f} free", flush=True)
    if need > free:
        sys.exit(f"{tempfile.gettempdir()} has too little room: set TMPDIR to a folder with more")
    with tempfile.TemporaryDirectory(prefix="giffusion-export-") as name:
        folder = Path(name)
        _write(checkpoint, folder)
        for case in size.cases:
            yield from _export(case, folder)
        yield _peer(size, folder)


def _write(checkpoint: Checkpoint, folder: Path) -> None:
    print(f"{checkpoint.name}: writing the checkpoint", flush=True)
    (folder / "checkpoint").mkdir()
    write_checkpoint(checkpoint, folder / "checkpoint", dtype=None, progress=_say)
    layers = write_lora(checkpoint, folder / "lora.safetensors", rank=RANK)
    print(f"{checkpoint.name}: LoRA on {layers} layers", flush=True)


def _export(case: Case, folder: Path) -> Iterator[Row]:
    model = folder / "model"
    lora = str(folder / "lora.safetensors")
    options = [lora if word == "LORA" else word for word in case.options]
    command = [COMMAND, "export", folder / "checkpoint", "-o", model, *options]
    exported = _run(folder, command)
    yield _row(f"export {case.name}", stored_bytes(model), exported) | {"steps_s": _steps(exported)}
    if case.checked == "verify":
        verified = _run(folder, [COMMAND, "models", "verify", model])
        found = [line.partition(": ")[2] for _, line in verified.lines if str(model) in line]
        yield _row("models verify", stored_bytes(model), verified) | {"found": found}
    elif case.checked == "step":
        yield from _step(folder, model)
    shutil.rmtree(model)


def _step(folder: Path, model: Path) -> Iterator[Row]:
    """One evaluation by each side, whose weights in fp32 memory would not hold both of."""
    files = {side: folder / f"{side}.npy" for side in ("onnxruntime", "torch")}
    try:
        for side, file in files.items():
            ran = _run(folder, [sys.executable, "-m", STEPS, side, model, file])
            found = [line for _, line in ran.lines]
            yield _row(f"{side}: one step", stored_bytes(model), ran) | {"found": found}
        compared = _run(folder, [sys.executable, "-m", STEPS, "compare", *files.values()])
        found = [line for _, line in compared.lines]
    except RuntimeError as error:
        # Less memory than the weights in fp32 take does not undo what was measured before.
        found = [str(error).replace(str(folder), "")]
    yield {"case": "steps compared", "found": found}


def _peer(size: Size, folder: Path) -> Row:
    if not size.peer:
        return {"case": PEER, "found": [PEER_TOO_LARGE]}
    target = folder / "peer"
    target.mkdir()
    command = [sys.executable, "-m", STEPS, "peer", folder / "checkpoint", target / "model.onnx"]
    ran = _run(folder, command)
    size_bytes = sum(file.stat().st_size for file in target.iterdir())
    shutil.rmtree(target)
    return _row(PEER, size_bytes, ran)


def _run(folder: Path, command: Sequence[object]) -> Measured:
    """Runs a command whose cache is new, so that no hash of before is recalled."""
    cache = folder / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    env = os.environ | {"GIFFUSION_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    print(" ".join(Path(str(word)).name for word in command), flush=True)
    measured = run_measured(command, env=env, cwd=_ROOT)
    print(f"    {measured}", flush=True)
    return measured


def _row(case: str, size_bytes: int, measured: Measured) -> Row:
    return {
        "case": case,
        "weights_bytes": size_bytes,
        "seconds": round(measured.seconds, 1),
        "cpu_s": round(measured.cpu_s, 1),
        "peak_rss_bytes": measured.peak_rss_bytes,
        "peak_anon_bytes": measured.peak_anon_bytes,
        "peak_to_weights": round(measured.peak_rss_bytes / size_bytes, 3),
    }


def _steps(measured: Measured) -> dict[str, float]:
    """Returns how long each step of an export took, which it announces in a line."""
    told = [(s, line.partition(": ")[2]) for s, line in measured.lines if ": " in line]
    named = [(s, line.partition(",")[0]) for s, line in told]
    ends = [s for s, _ in named[1:]]
    steps = {name: end - s for (s, name), end in zip(named, ends, strict=False)}
    return {"until the first": round(named[0][0], 1)} | {k: round(v, 1) for k, v in steps.items()}


def _cells(row: Row) -> list[object]:
    if "seconds" not in row:
        return [f"{row['case']}: {row['found']}", *[""] * 6]
    sizes = [row[f"{name}_bytes"] for name in ("weights", "peak_rss", "peak_anon")]
    weights, rss, anonymous = (f"{s / GB:.2f}" for s in sizes if isinstance(s, int))
    seconds = row["seconds"], row["cpu_s"]
    return [row["case"], weights, *seconds, rss, anonymous, row["peak_to_weights"]]


def _say(line: str) -> None:
    print(f"    {line}", flush=True)


if __name__ == "__main__":
    main()
