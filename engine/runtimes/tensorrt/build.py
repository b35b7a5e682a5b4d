"""One graph, some fixed shapes, some devices → one engine.

Called by `prepare.py`. The invariant: the network that is built has the tensors, types and sizes
of the graph's contract, and computes in the types that its file states, float32 without TF32.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from giffusion.engine.contract import GraphSpec, TensorSpec
from giffusion.engine.errors import ModelError
from giffusion.engine.runtimes.base import OnPrepare
from giffusion.engine.runtimes.tensorrt.monitor import TOTAL, new_monitor
from giffusion.engine.runtimes.tensorrt.package import TensorRtPackage

OPTIONS = 1
"""Version of how engines are built; part of what names them. Raise it when that changes."""
DYNAMIC = -1
"""TensorRT's size of an axis that a profile fixes."""
Plan = memoryview
"""A built engine as bytes, in TensorRT's own memory."""


def build_engine(
    package: TensorRtPackage,
    graph_path: Path,
    spec: GraphSpec,
    shapes: Sequence[Mapping[str, int]],
    devices: Sequence[str],
    timing_cache: Path | None,
    on_progress: OnPrepare,
) -> Plan:
    """Builds an engine with one static profile for each of some shapes.

    The build runs on a thread of its own, so that Ctrl-C, or anything else that `on_progress`
    raises, stops it at its next step; it is raised here when the build has stopped.

    Args:
        package: builds it.
        graph_path: the ONNX file, its weights beside it.
        spec: its contract.
        shapes: sizes of all named axes, once for each profile, in the profiles' order.
        devices: architectures such as `sm89`.
        timing_cache: file that keeps kernel timings between builds, for packages that have them.
        on_progress: called on the calling thread.

    Raises:
        ModelError: the file is not the graph that the contract describes, or cannot be built.
    """
    label = f"building {graph_path.stem} for {', '.join(devices)}"
    stop = threading.Event()
    percents: SimpleQueue[int | None] = SimpleQueue()
    with ThreadPoolExecutor(1, thread_name_prefix="build") as pool:
        building = pool.submit(
            _build,
            _Build(package, graph_path, spec, shapes, devices),
            timing_cache,
            new_monitor(package.trt, percents.put, stop.is_set),
        )
        building.add_done_callback(lambda _: percents.put(None))
        try:
            on_progress(label, 0, TOTAL)
            while (percent := percents.get()) is not None:
                if percent < TOTAL:  # told when the plan is there
                    on_progress(label, percent, TOTAL)
        except BaseException:
            stop.set()
            raise
    plan = building.result()
    on_progress(label, TOTAL, TOTAL)
    return plan


@dataclass(frozen=True, slots=True)
class _Build:
    package: TensorRtPackage
    path: Path
    spec: GraphSpec
    shapes: Sequence[Mapping[str, int]]
    devices: Sequence[str]


def _build(build: _Build, timing_cache: Path | None, monitor: Any) -> Plan:
    package = build.package
    package.clear_errors()
    builder = package.trt.Builder(package.logger)
    network = parse_graph(package, builder, build.path)
    check_network(package, network, build.path, build.spec, build.shapes)
    config = builder.create_builder_config()
    config.clear_flag(package.trt.BuilderFlag.TF32)
    config.progress_monitor = monitor
    package.set_devices(config, build.devices)
    _add_profiles(builder, config, network, build)
    cache = timing_cache if package.has_timing_cache else None
    if cache is not None:
        read_timings(config, cache)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ModelError(
            f"{build.path} cannot be built for {', '.join(build.devices)} by {package.name} "
            f"{package.version}: {package.first_error()}"
        )
    if cache is not None:
        write_timings(config, cache)
    return memoryview(plan).cast("B")


def parse_graph(package: TensorRtPackage, builder: Any, path: Path) -> Any:
    """Reads an ONNX file into a network.

    Raises:
        ModelError: it cannot be read.
    """
    network = package.create_network(builder)
    parser = package.trt.OnnxParser(network, package.logger)
    if parser.parse_from_file(os.fspath(path)):
        return network
    reason = package.first_error()
    if parser.num_errors:
        error = parser.get_error(0)
        # What the parser says in more lines it found on its way to the first.
        reason = error.desc().partition("\n")[0]
        if error.node_name():
            reason = f"{error.node_operator()} {error.node_name()}: {reason}"
    raise ModelError(
        f"{path} cannot be read by {package.name} {package.version}: {reason}; export the model "
        "again"
    )


def check_network(
    package: TensorRtPackage,
    network: Any,
    path: Path,
    spec: GraphSpec,
    shapes: Sequence[Mapping[str, int]],
) -> None:
    """Compares a network's tensors with the contract.

    Args:
        package: whose network it is.
        network: a parsed network.
        path: the file that it was read from, for messages.
        spec: the contract.
        shapes: sizes of the named axes that it must allow.

    Raises:
        ModelError: a name, a type, a rank or a fixed size differs.
    """
    for kind, tensors, found in (
        ("input", spec.inputs, _inputs(network)),
        ("output", spec.outputs, _outputs(network)),
    ):
        names, expected = [t.name for t in found], [t.name for t in tensors]
        if names != expected:
            raise ModelError(
                f"{path} has the {kind}s {', '.join(names)}: expected {', '.join(expected)} of "
                f"the {spec.name} graph; export the model again"
            )
        for tensor, contract in zip(found, tensors, strict=True):
            _check_tensor(package, tensor, contract, path, shapes)


def _check_tensor(
    package: TensorRtPackage,
    tensor: Any,
    contract: TensorSpec,
    path: Path,
    shapes: Sequence[Mapping[str, int]],
) -> None:
    dtype, expected = tensor.dtype, getattr(package.trt, contract.dtype)
    if dtype != expected:
        raise ModelError(
            f"{path} has {contract.name!r} of type {dtype.name}: expected {expected.name}; export "
            "the model again"
        )
    got = tuple(tensor.shape)
    for shape in (contract.resolve(axes) for axes in shapes):
        fits = (g in (DYNAMIC, s) for g, s in zip(got, shape, strict=False))
        if len(got) != len(shape) or not all(fits):
            raise ModelError(
                f"{path} has {contract.name!r} of shape {got}: expected {contract.shape}, here "
                f"{shape}; export the model again"
            )


def _inputs(network: Any) -> list[Any]:
    return [network.get_input(index) for index in range(network.num_inputs)]


def _outputs(network: Any) -> list[Any]:
    return [network.get_output(index) for index in range(network.num_outputs)]


def _add_profiles(builder: Any, config: Any, network: Any, build: _Build) -> None:
    if all(DYNAMIC not in tuple(tensor.shape) for tensor in _inputs(network)):
        return
    for axes in build.shapes:
        profile = builder.create_optimization_profile()
        for tensor in build.spec.inputs:
            shape = tensor.resolve(axes)
            profile.set_shape(tensor.name, shape, shape, shape)
        config.add_optimization_profile(profile)


def read_timings(config: Any, path: Path) -> None:
    """Gives a build the timings of earlier ones; those of another GPU or version are left out."""
    try:
        timings = path.read_bytes()
    except FileNotFoundError:
        timings = b""
    cache = config.create_timing_cache(timings)
    # A file that is no timing cache at all gives none.
    if cache is None or not config.set_timing_cache(cache, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def write_timings(config: Any, path: Path) -> None:
    """Keeps a build's timings for later ones, unless the disk is full.

    The file is the whole of them, or what it was.
    """
    temp = path.with_name(f"{path.name}.{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temp.write_bytes(memoryview(config.get_timing_cache().serialize()))
        os.replace(temp, path)
