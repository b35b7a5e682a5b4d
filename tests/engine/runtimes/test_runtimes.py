"""What every runtime keeps to, with the bundled model; how one is chosen, and what is refused.

Placement invariance is what batching rests on: a frame's bits do not depend on where in the
batch it is, nor on what is beside it.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from giffusion.engine.contract import STATE_ROWS, TABLE_COLUMNS, TensorSpec
from giffusion.engine.errors import ModelError, RuntimeUnavailableError, SettingsError
from giffusion.engine.model import Model
from giffusion.engine.runtimes import (
    ENTRY_POINTS,
    RuntimeStatus,
    choose_runtime,
    examine_runtimes,
    open_runtime,
    runtime_names,
)
from giffusion.engine.runtimes.base import Graph, Runtime
from giffusion.engine.runtimes.fake import FakeRuntime
from giffusion.engine.runtimes.onnxruntime import OnnxRuntime
from giffusion.engine.runtimes.openvino import OpenVinoRuntime
from giffusion.export.nv12 import nv12 as convert

Array = NDArray[Any]
OpenCpu = Callable[[str, str], Runtime]
SIDE = 16
CPU = ("onnxruntime fp32", "openvino fp32", "openvino bf16")


@pytest.fixture(scope="module", params=[*CPU, "fake fp32"])
def runtime(request: pytest.FixtureRequest, open_cpu: OpenCpu) -> Runtime:
    name, precision = request.param.split()
    return FakeRuntime(precision) if name == "fake" else open_cpu(name, precision)


@pytest.fixture(scope="module", params=CPU)
def cpu_runtime(request: pytest.FixtureRequest, open_cpu: OpenCpu) -> Runtime:
    name, precision = request.param.split()
    return open_cpu(name, precision)


LoadDenoise = Callable[[int, int], Graph]


@pytest.fixture(scope="module")
def load_denoise(runtime: Runtime, mini: Model) -> LoadDenoise:
    """Loads the denoise graph without feedback for numbers of slots and rows, each once."""

    @cache
    def load(slots: int, rows: int) -> Graph:
        axes = {"slots": slots, "rows": rows, "h": SIDE, "w": SIDE}
        return runtime.load(mini.graph_path("denoise"), mini.spec("denoise"), axes)

    return load


def bits(array: Array) -> Array:
    return array.view(np.uint32)


@dataclasses.dataclass(frozen=True)
class Frame:
    """Everything that one slot holds, and its rows' conditions and weights."""

    slot: dict[str, Array]
    cond: Array
    mix: Array

    @classmethod
    def random(cls, model: Model, seed: int, num_rows: int) -> Frame:
        values = np.random.default_rng([seed, num_rows])
        manifest = model.manifest

        def normal(*shape: int) -> Array:
            return values.standard_normal(shape, np.float32)

        slot: dict[str, Array] = {
            "state": normal(STATE_ROWS, 4, SIDE, SIDE),
            "scale": np.array(values.uniform(0.1, 1), np.float32),
            "time_proj": normal(manifest.time_dim),
            "noise": normal(4, SIDE, SIDE),
            "table": normal(STATE_ROWS, TABLE_COLUMNS),
        }
        cond = normal(num_rows, manifest.num_tokens, manifest.prompt_dim)
        return cls(slot, cond, normal(num_rows))


@dataclasses.dataclass(frozen=True)
class Placed:
    frame: Frame
    slot: int
    rows: Sequence[int]


def run_batch(graph: Graph, placed: Sequence[Placed]) -> Array:
    """Runs frames at their places; all other slots and rows are empty."""
    for name in ("state", "scale", "time_proj", "noise", "cond", "mix"):
        graph.write(name, np.zeros((), np.float32))
    graph.write("row_slot", np.zeros((), np.int32))
    graph.write("table", np.eye(STATE_ROWS, TABLE_COLUMNS, dtype=np.float32))
    for item in placed:
        for name, value in item.frame.slot.items():
            graph.write(name, value, item.slot)
        for row, cond, weight in zip(item.rows, item.frame.cond, item.frame.mix, strict=True):
            graph.write("cond", cond, row)
            graph.write("row_slot", np.array(item.slot, np.int32), row)
            graph.write("mix", weight, (item.slot, row))
    graph.run()
    return graph.read("next_state")


def random_batch(model: Model, size: int, frame: Frame, trial: int) -> list[Placed]:
    """Places a frame anywhere among `size` slots and rows; in odd trials with neighbours."""
    choice = np.random.default_rng([size, trial])
    slots = choice.permutation(size).tolist()
    rows = choice.permutation(size).tolist()
    placed: list[Placed] = []
    while slots and rows and (not placed or trial % 2):
        num_rows = min(len(rows), int(choice.integers(1, 4)))
        new = Frame.random(model, int(choice.integers(2**31)), num_rows) if placed else frame
        taken = [rows.pop() for _ in new.mix]
        # As the scheduler gives them: ascending, with rows of others in between.
        placed.append(Placed(new, slots.pop(), sorted(taken)))
    return placed


@pytest.mark.parametrize("num_conditions", [1, 2, 3])
def test_a_frames_bits_do_not_depend_on_its_place(
    mini: Model, runtime: Runtime, load_denoise: LoadDenoise, num_conditions: int
) -> None:
    frame = Frame.random(mini, 1, num_conditions)
    alone = [Placed(frame, 0, range(num_conditions))]
    expected = run_batch(load_denoise(num_conditions, num_conditions), alone)[0]
    assert np.isfinite(expected).all()
    assert expected.std() > 0.1
    for size in (1, 2, 7, 8, 16):
        for trial in range(6 if size >= num_conditions else 0):
            placed = random_batch(mini, size, frame, trial)
            result = run_batch(load_denoise(size, size), placed)[placed[0].slot]
            differing = int((bits(result) != bits(expected)).sum())
            assert differing == 0, (
                f"{runtime.name} {runtime.precision}: {differing} of {result.size} values differ, "
                f"by {np.abs(result - expected).max()}, with {size} rows at {placed[0].rows}"
            )


def test_a_neighbour_that_overflows_does_no_harm(
    mini: Model, runtime: Runtime, load_denoise: LoadDenoise
) -> None:
    frame, other = Frame.random(mini, 1, 2), Frame.random(mini, 2, 2)
    broken = dataclasses.replace(other, cond=other.cond * np.float32(np.nan))
    graph = load_denoise(4, 4)
    place = Placed(frame, 1, (0, 2))
    expected = run_batch(graph, [place, Placed(other, 3, (1, 3))])
    result = run_batch(graph, [place, Placed(broken, 3, (1, 3))])
    assert np.isnan(result[3]).any()
    assert np.array_equal(bits(result[1]), bits(expected[1]))


def test_slots_and_rows_may_differ_in_number(mini: Model, load_denoise: LoadDenoise) -> None:
    frames = [Frame.random(mini, seed, 2) for seed in (1, 2)]
    placed = [Placed(frames[0], 1, (0, 5)), Placed(frames[1], 0, (2, 3))]
    together = run_batch(load_denoise(2, 7), placed)
    for item in placed:
        alone = run_batch(load_denoise(2, 2), [Placed(item.frame, 0, (0, 1))])[0]
        assert np.array_equal(bits(together[item.slot]), bits(alone))


def test_every_input_matters(mini: Model, load_denoise: LoadDenoise) -> None:
    graph = load_denoise(2, 2)
    frame = Frame.random(mini, 1, 2)
    before = run_batch(graph, [Placed(frame, 0, (0, 1))])[0]
    for name, value in frame.slot.items():
        changed = dataclasses.replace(frame, slot=frame.slot | {name: value * np.float32(1.5)})
        assert not np.array_equal(run_batch(graph, [Placed(changed, 0, (0, 1))])[0], before), name
    for field in ("cond", "mix"):
        changed = dataclasses.replace(frame, **{field: getattr(frame, field) * np.float32(1.5)})
        assert not np.array_equal(run_batch(graph, [Placed(changed, 0, (0, 1))])[0], before), field


# The largest that bfloat16 has too: OpenVINO scales the latents in it, and 0 times infinity is no
# number.
LARGEST = np.uint32(0x7F7F0000).view(np.float32)


def finite_bits(count: int) -> Array:
    """Any float32 values up to `LARGEST`, -0.0 aside: uniform in their bits."""
    patterns = np.random.default_rng(0).integers(0, 2**32, 2 * count, np.uint32).view(np.float32)
    kept: Array = patterns[(np.abs(patterns) <= LARGEST) & (bits(patterns) != 2**31)][:count]
    assert len(kept) == count
    return kept


def denormals(count: int) -> Array:
    random = np.random.default_rng(1)
    signs = random.integers(0, 2, count, np.uint32) << np.uint32(31)
    values: Array = (random.integers(1, 2**23, count, np.uint32) | signs).view(np.float32)
    return values


def huge(count: int) -> Array:
    return np.random.default_rng(2).choice([-LARGEST, LARGEST], count)


def normal(count: int) -> Array:
    return np.random.default_rng(3).standard_normal(count, np.float32)


STATES = {"normal": normal, "denormal": denormals, "huge": huge, "any": finite_bits}


@pytest.mark.parametrize("weight", [0.0, 1.0], ids=["free", "busy"])
@pytest.mark.parametrize("kind", STATES)
def test_an_identity_table_returns_the_state_bit_for_bit(
    mini: Model, load_denoise: LoadDenoise, kind: str, weight: float
) -> None:
    size = 3
    graph = load_denoise(size, size)
    # A model that is given infinity returns none of the numbers, and 0 times it is none either.
    scale = np.array(1 if kind in ("normal", "denormal") else 0, np.float32)
    shape = (STATE_ROWS, 4, SIDE, SIDE)
    states = STATES[kind](size * int(np.prod(shape))).reshape(size, *shape)
    table = np.eye(STATE_ROWS, TABLE_COLUMNS, dtype=np.float32)
    placed = []
    for slot, state in enumerate(states):
        frame = Frame.random(mini, slot, 1)
        inputs = frame.slot | {"state": state, "scale": scale, "table": table}
        placed.append(Placed(Frame(inputs, frame.cond, frame.mix * weight), slot, (slot,)))
    assert np.array_equal(bits(run_batch(graph, placed)), bits(states))


def test_an_identity_table_returns_zeros_as_zeros(mini: Model, load_denoise: LoadDenoise) -> None:
    # A sum of -0.0 and 0.0 is 0.0: the sign of a zero is the one thing that is not kept.
    state = np.full((STATE_ROWS, 4, SIDE, SIDE), -0.0, np.float32)
    frame = Frame.random(mini, 1, 1)
    table = np.eye(STATE_ROWS, TABLE_COLUMNS, dtype=np.float32)
    inputs = frame.slot | {"state": state, "table": table}
    placed = [Placed(Frame(inputs, frame.cond, frame.mix), 0, (0,))]
    assert (run_batch(load_denoise(1, 1), placed)[0] == 0).all()


def test_runs_and_loads_repeat_bit_for_bit(
    mini: Model, runtime: Runtime, load_denoise: LoadDenoise
) -> None:
    placed = [Placed(Frame.random(mini, seed, 2), seed, (seed, 7 - seed)) for seed in range(4)]
    first, second = (run_batch(load_denoise(8, 8), placed) for _ in range(2))
    axes = {"slots": 8, "rows": 8, "h": SIDE, "w": SIDE}
    loaded = runtime.load(mini.graph_path("denoise"), mini.spec("denoise"), axes)
    third = run_batch(loaded, placed)
    assert first.tobytes() == second.tobytes() == third.tobytes()


def test_feedback_makes_an_output_the_next_input(
    mini: Model, runtime: Runtime, load_denoise: LoadDenoise
) -> None:
    placed = [Placed(Frame.random(mini, 1, 2), 1, (0, 1))]
    axes = {"slots": 2, "rows": 2, "h": SIDE, "w": SIDE}
    path, spec = mini.graph_path("denoise"), mini.spec("denoise")
    fed = runtime.load(path, spec, axes, {"next_state": "state"})
    run_batch(fed, placed)
    plain = load_denoise(2, 2)
    state = run_batch(plain, placed)
    for _ in range(3):
        assert np.array_equal(bits(fed.read("state")), bits(state))
        assert np.array_equal(bits(fed.read("state", (1, 0))), bits(state[1, 0]))
        fed.run()
        plain.write("state", state)
        plain.run()
        state = plain.read("next_state")
    # What is written after a run is what the next one takes.
    fed.write("state", np.zeros_like(state[0]), 1)
    assert not fed.read("state", 1).any()
    assert np.array_equal(bits(fed.read("state", 0)), bits(state[0]))


def test_buffers_are_zero_at_first(mini: Model, runtime: Runtime) -> None:
    axes = {"slots": 2, "rows": 3, "h": SIDE, "w": 8}
    spec = mini.spec("denoise")
    graph = runtime.load(mini.graph_path("denoise"), spec, axes)
    for tensor in (*spec.inputs, *spec.outputs):
        value = graph.read(tensor.name)
        assert value.shape == tensor.resolve(axes)
        assert value.dtype == tensor.dtype
        assert not value.any()


def test_write_read_and_copy_move_values_not_arrays(mini: Model, runtime: Runtime) -> None:
    axes = {"slots": 2, "rows": 2, "h": SIDE, "w": SIDE}
    denoise = runtime.load(
        mini.graph_path("denoise"), mini.spec("denoise"), axes, {"next_state": "state"}
    )
    decode = runtime.load(
        mini.graph_path("decode"), mini.spec("decode"), {"images": 2, "h": SIDE, "w": SIDE}
    )
    state = np.random.default_rng(0).standard_normal((2, STATE_ROWS, 4, SIDE, SIDE), np.float32)
    kept = state.copy()
    denoise.write("state", state)
    state[:] = 7
    assert np.array_equal(denoise.read("state"), kept)
    denoise.read("state")[:] = 7
    denoise.read("state", (1, 0))[:] = 7
    assert np.array_equal(denoise.read("state"), kept)
    denoise.write("state", kept[0], 1)
    assert np.array_equal(denoise.read("state"), kept[[0, 0]])
    denoise.write("state", kept[1, 0], (0, 2))
    assert np.array_equal(denoise.read("state", (0, 2)), kept[1, 0])
    assert np.array_equal(denoise.read("state", (0, 1)), kept[0, 1])
    decode.copy("latents", 1, denoise, "state", (0, 2))
    assert not decode.read("latents", 0).any()
    assert np.array_equal(decode.read("latents", 1), kept[1, 0])
    denoise.write("state", kept)
    assert np.array_equal(decode.read("latents", 1), kept[1, 0])


def test_nv12_is_the_exact_conversion_of_the_same_picture(
    mini: Model, cpu_runtime: Runtime
) -> None:
    axes = {"images": 2, "h": SIDE, "w": SIDE}
    decode = cpu_runtime.load(mini.graph_path("decode"), mini.spec("decode"), axes)
    latents = np.random.default_rng(0).standard_normal((2, 4, SIDE, SIDE), np.float32)
    decode.write("latents", 2 * latents)
    decode.run()
    rgb, nv12 = decode.read("rgb"), decode.read("nv12")
    assert (rgb.min(), rgb.max()) == (0, 255)
    expected = convert(torch.from_numpy(rgb).permute(0, 3, 1, 2)).numpy()
    assert np.array_equal(nv12, expected)


def test_a_fetch_is_a_copy_that_has_arrived(mini: Model, runtime: Runtime) -> None:
    axes = {"images": 1, "h": SIDE, "w": SIDE}
    decode = runtime.load(mini.graph_path("decode"), mini.spec("decode"), axes)
    decode.run()
    fetch = decode.fetch("nv12", 0)
    grey = np.array(fetch.result())
    decode.write("latents", np.full((1, 4, SIDE, SIDE), 2, np.float32))
    decode.run()
    assert fetch.done
    assert np.array_equal(np.asarray(fetch.result()), grey)
    assert not np.array_equal(decode.read("nv12", 0), grey)


def test_copy_takes_what_a_run_fed_back(mini: Model, runtime: Runtime) -> None:
    axes = {"slots": 2, "rows": 2, "h": SIDE, "w": SIDE}
    denoise = runtime.load(
        mini.graph_path("denoise"), mini.spec("denoise"), axes, {"next_state": "state"}
    )
    decode = runtime.load(
        mini.graph_path("decode"), mini.spec("decode"), {"images": 1, "h": SIDE, "w": SIDE}
    )
    run_batch(denoise, [Placed(Frame.random(mini, 1, 2), 1, (0, 1))])
    decode.copy("latents", 0, denoise, "state", (1, 0))
    latents = denoise.read("state", (1, 0))
    assert latents.any()
    assert np.array_equal(decode.read("latents", 0), latents)
    decode.run()
    first = decode.read("rgb", 0)
    assert first.shape == (8 * SIDE, 8 * SIDE, 3)
    # The source is left as it was, and goes on.
    assert np.array_equal(denoise.read("state", (1, 0)), latents)
    denoise.run()
    assert np.array_equal(decode.read("rgb", 0), first)


def test_two_graphs_run_on_two_threads(
    mini: Model, runtime: Runtime, load_denoise: LoadDenoise
) -> None:
    graph = load_denoise(2, 2)
    placed = [Placed(Frame.random(mini, 1, 2), 0, (0, 1))]
    text = runtime.load(mini.graph_path("text"), mini.spec("text"), {"prompts": 1})

    def embed(prompt: str) -> bytes:
        text.write("input_ids", mini.tokenizer.encode(prompt), 0)
        text.run()
        return text.read("prompt_embeds").tobytes()

    def denoise(_: int) -> bytes:
        return run_batch(graph, placed).tobytes()

    prompts = ["a dog", "a lion", "", "a red house"] * 5
    alone = [embed(prompt) for prompt in prompts], [denoise(i) for i in range(2)]
    assert len(set(alone[0])) == 4
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        embedded, denoised = one.map(embed, prompts), other.map(denoise, range(10))
        assert list(embedded) == alone[0]
        assert set(denoised) == set(alone[1])


def one_line(caught: pytest.ExceptionInfo[Exception]) -> str:
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(None, id="missing"),
        pytest.param(b"", id="empty"),
        pytest.param(b"not\na graph\n", id="text"),
        pytest.param(0.5, id="cut short"),
        pytest.param(1.0, id="without its weights"),
    ],
)
def test_a_broken_graph_is_one_line(
    mini: Model, cpu_runtime: Runtime, tmp_path: Path, content: bytes | float | None
) -> None:
    path = tmp_path / "text.onnx"
    if isinstance(content, float):
        whole = mini.graph_path("text").read_bytes()
        path.write_bytes(whole[: int(content * len(whole))])
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        cpu_runtime.load(path, mini.spec("text"), {"prompts": 1})
    assert str(path) in one_line(caught)
    assert "cannot be loaded by" in str(caught.value)


@pytest.mark.parametrize(("stage", "wrong"), [("text", "decode"), ("decode", "encode")])
def test_another_graph_than_the_contracts_is_refused(
    mini: Model, cpu_runtime: Runtime, stage: str, wrong: str
) -> None:
    path, axes = mini.graph_path(wrong), {"prompts": 1, "images": 1, "h": SIDE, "w": SIDE}
    with pytest.raises(ModelError) as caught:
        cpu_runtime.load(path, mini.spec(stage), axes)
    assert str(path) in one_line(caught)


def test_another_output_or_width_is_refused(mini: Model, cpu_runtime: Runtime) -> None:
    path, spec = mini.graph_path("text"), mini.spec("text")
    (output,) = spec.outputs
    width = mini.manifest.prompt_dim
    for wrong in (
        dataclasses.replace(output, name="pooled"),
        TensorSpec(output.name, output.dtype, (*output.shape[:2], width + 1)),
        TensorSpec(output.name, output.dtype, output.shape[:2]),
    ):
        with pytest.raises(ModelError) as caught:
            cpu_runtime.load(path, dataclasses.replace(spec, outputs=(wrong,)), {"prompts": 1})
        assert "export the model again" in one_line(caught)
        assert str(path) in str(caught.value)


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(SettingsError, match=r"unknown runtime 'onnxruntim': did you mean 'onnx"):
        open_runtime("onnxruntim")
    with pytest.raises(SettingsError, match="unknown precision 'bf32': did you mean 'fp32'"):
        open_runtime("onnxruntime", "bf32")
    with pytest.raises(SettingsError, match="known: auto, onnxruntime, openvino"):
        open_runtime("zzz")


def test_a_precision_that_a_runtime_lacks_is_refused() -> None:
    with pytest.raises(SettingsError) as caught:
        open_runtime("onnxruntime", "bf16")
    assert one_line(caught) == (
        "precision 'bf16' is not available on runtime 'onnxruntime': expected fp32"
    )


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_package_that_is_not_installed_is_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RuntimeUnavailableError) as caught:
        open_runtime(name)
    message = one_line(caught)
    assert message.startswith(f"runtime '{name}' does not work here: ")
    assert message.endswith(f"; pip install {name}")
    (status,) = (status for status in examine_runtimes() if status.name == name)
    assert status == RuntimeStatus(name, False, message)


def test_runtimes_that_work_are_examined() -> None:
    statuses = {status.name: status for status in examine_runtimes()}
    assert tuple(statuses) == runtime_names() == tuple(sorted(statuses))
    for name in ("onnxruntime", "openvino"):
        opened = open_runtime(name)
        assert isinstance(opened, OnnxRuntime | OpenVinoRuntime)
        detail = f"{opened.version} {opened.precision}"
        assert statuses[name] == RuntimeStatus(name, True, detail)


class FakeCore:
    """OpenVINO on a CPU with other capabilities."""

    capabilities: Sequence[str] = ("FP32", "INT8", "BIN")

    def get_property(self, device: str, name: str) -> Sequence[str]:
        assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
        if not self.capabilities:
            raise RuntimeError("no plugin for CPU\nin a second line")
        return self.capabilities


def fake_openvino(monkeypatch: pytest.MonkeyPatch, *capabilities: str) -> None:
    core = type("Core", (FakeCore,), {"capabilities": capabilities})
    module = SimpleNamespace(Core=core, __version__="2030.1.0-1234-releases")
    monkeypatch.setitem(sys.modules, "openvino", module)


@pytest.mark.parametrize(
    ("capabilities", "precision", "expected"),
    [
        (("FP32", "BF16"), None, "openvino bf16 (this CPU computes in bfloat16)"),
        (("FP32", "BF16"), "bf16", "openvino bf16 (this CPU computes in bfloat16)"),
        (("FP32", "BF16"), "fp32", "openvino fp32 (faster than onnxruntime in fp32)"),
        (("FP32",), None, "openvino fp32 (faster than onnxruntime in fp32)"),
        (("FP32", "FP16"), None, "openvino fp32 (faster than onnxruntime in fp32)"),
        (("FP32", "FP16"), "fp16", "openvino fp16 (fp16 was asked for)"),
        (
            (),
            None,
            "onnxruntime fp32 (runtime 'openvino' does not work here: no plugin for CPU)",
        ),
    ],
)
def test_the_choice_is_a_property_of_the_machine(
    monkeypatch: pytest.MonkeyPatch,
    capabilities: tuple[str, ...],
    precision: str | None,
    expected: str,
) -> None:
    fake_openvino(monkeypatch, *capabilities)
    runtime, reason = choose_runtime(precision)
    assert reason == expected
    assert reason.startswith(f"{runtime.name} {runtime.precision} (")
    if isinstance(runtime, OpenVinoRuntime):
        assert runtime.version == "2030.1.0"


def test_without_openvino_onnxruntime_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    for precision in (None, "fp32"):
        runtime, reason = choose_runtime(precision)
        assert isinstance(runtime, OnnxRuntime)
        assert reason.startswith("onnxruntime fp32 (runtime 'openvino' does not work here: ")
        assert "pip install openvino" in reason
        assert "\n" not in reason


def test_a_precision_is_never_given_up_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "openvino", None)
        with pytest.raises(SettingsError, match="precision 'bf16' is not available on runtime 'on"):
            choose_runtime("bf16")
    fake_openvino(monkeypatch, "FP32")
    with pytest.raises(SettingsError, match=r"'bf16' is not available .*: expected fp32$"):
        choose_runtime("bf16")


def test_without_any_runtime_the_choice_fails_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RuntimeUnavailableError, match="pip install onnxruntime") as caught:
        choose_runtime()
    one_line(caught)


def install_plugin(folder: Path, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    """Puts a distribution that registers the runtime `toy` on the path."""
    metadata = folder / "toy_runtime-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-runtime\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\ntoy = {target}\n")
    (folder / "toy_runtime_for_tests.py").write_text(
        "class ToyRuntime:\n"
        "    name = 'toy'\n"
        "    version = '1.0'\n"
        "    def __init__(self, precision=None):\n"
        "        self.precision = precision or 'fp16'\n"
        "        self.numerics = {'device': 'a toy card'}\n"
    )
    monkeypatch.syspath_prepend(folder)


def test_a_registered_runtime_is_listed_and_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_plugin(tmp_path, monkeypatch, "toy_runtime_for_tests:ToyRuntime")
    assert "toy" in runtime_names()
    assert open_runtime("toy").precision == "fp16"
    assert open_runtime("toy", "fp32").precision == "fp32"
    assert RuntimeStatus("toy", True, "1.0 fp16 on a toy card") in examine_runtimes()
    with pytest.raises(SettingsError, match="did you mean 'toy'"):
        open_runtime("toyy")


@pytest.mark.parametrize("target", ["no_such_module_here:Toy", "toy_runtime_for_tests:Missing"])
def test_a_registered_runtime_that_does_not_load_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    install_plugin(tmp_path, monkeypatch, target)
    with pytest.raises(
        RuntimeUnavailableError, match="runtime 'toy' does not work here: "
    ) as caught:
        open_runtime("toy")
    assert RuntimeStatus("toy", False, one_line(caught)) in examine_runtimes()
