"""NVIDIA's packages: what they build for, what they say, and one that is not installed."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from giffusion.engine.errors import RuntimeUnavailableError, SettingsError
from giffusion.engine.runtimes.tensorrt import package
from giffusion.engine.runtimes.tensorrt.package import MAX_ERRORS, PACKAGES, TensorRtPackage


@pytest.fixture(scope="module")
def rtx() -> TensorRtPackage:
    return TensorRtPackage("tensorrt-rtx")


@pytest.fixture
def classic(rtx: TensorRtPackage, monkeypatch: pytest.MonkeyPatch) -> TensorRtPackage:
    """`tensorrt`, which has the other's interface but for the choice of devices."""
    module = SimpleNamespace(ILogger=rtx.trt.ILogger, __version__="11.0")
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    # The real one's logger, where it is installed, is left to the tests that use it.
    monkeypatch.setattr(package, "_logger", package._logger.__wrapped__)
    return TensorRtPackage("tensorrt")


def test_the_devices_are_those_of_the_package_in_order(rtx: TensorRtPackage) -> None:
    assert rtx.devices[:4] == ("sm75", "sm80", "sm86", "sm89")
    assert rtx.devices[-2:] == ("sm120", "sm121")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["sm99"], "device 'sm99' is not one of tensorrt-rtx's: did you mean 'sm89'"),
        (["sm89", ""], "device '' is not one of tensorrt-rtx's: known: current, sm120"),
        (["sm89", "sm89"], "device 'sm89' is given 2 times"),
        (["sm89", "current"], "device 'current' stands alone"),
    ],
)
def test_devices_that_cannot_be_built_for(
    rtx: TensorRtPackage, names: list[str], words: str
) -> None:
    rtx.check_devices(["sm75", "sm120"])
    rtx.check_devices(["current"])
    with pytest.raises(SettingsError, match=words):
        rtx.check_devices(names)


def test_classic_builds_for_the_gpu_at_hand_alone(classic: TensorRtPackage) -> None:
    classic.check_devices(["current"])
    words = r"tensorrt's: tensorrt builds for the GPU at hand: give current$"
    with pytest.raises(SettingsError, match=words):
        classic.check_devices(["sm89"])
    config = SimpleNamespace()
    classic.set_devices(config, ["sm90"])
    assert vars(config) == {}
    assert classic.has_timing_cache
    assert not classic.compiles_on_device


def test_a_build_is_for_the_devices_that_are_named(rtx: TensorRtPackage) -> None:
    config = rtx.trt.Builder(rtx.logger).create_builder_config()
    capabilities = rtx.trt.ComputeCapability
    for names in (["sm89", "sm120"], ["sm75"]):
        rtx.set_devices(config, names)
        got = [config.get_compute_capability(i) for i in range(config.num_compute_capabilities)]
        assert got == [getattr(capabilities, name.upper()) for name in names]


@pytest.mark.parametrize("device", ["sm70", "sm87", "sm90", "sm100", "sm130"])
def test_a_gpu_that_engines_would_not_load_on_is_refused(
    rtx: TensorRtPackage, classic: TensorRtPackage, device: str
) -> None:
    for known in rtx.devices:
        rtx.check_gpu(known)
    with pytest.raises(RuntimeUnavailableError) as caught:
        rtx.check_gpu(device)
    assert str(caught.value) == (
        f"runtime 'tensorrt-rtx' does not work on this GPU, {device}: version {rtx.version} runs "
        f"on {', '.join(rtx.devices)}; choose runtime 'tensorrt' or 'torch' instead"
    )
    # It names no devices, and says so itself as it builds.
    classic.check_gpu(device)


def test_precisions_that_a_device_lacks(rtx: TensorRtPackage, classic: TensorRtPackage) -> None:
    rtx.check_precision("fp16", ["sm75"])
    rtx.check_precision("bf16", ["sm86", "sm90"])
    for precision in ("bf16", "fp32"):
        with pytest.raises(SettingsError, match=f"'{precision}' is not available on sm75 with"):
            rtx.check_precision(precision, ["sm89", "sm75"])
    classic.check_precision("fp32", ["sm75"])
    with pytest.raises(SettingsError, match="'bf16' is not available on sm75 with tensorrt:"):
        classic.check_precision("bf16", ["sm75"])
    with pytest.raises(SettingsError, match="unknown precision 'int8'"):
        rtx.check_precision("int8", ["sm89"])


@pytest.mark.parametrize("name", PACKAGES)
def test_one_that_is_not_installed_says_how_to_install_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name.replace("-", "_"), None)
    with pytest.raises(RuntimeUnavailableError, match=rf"pip install 'giffusion\[{name}\]'$"):
        TensorRtPackage(name)


def test_a_name_that_is_no_package() -> None:
    with pytest.raises(SettingsError, match="unknown runtime 'tensor': did you mean 'tensorrt'"):
        TensorRtPackage("tensor")


def test_errors_are_collected_and_not_printed(
    rtx: TensorRtPackage, capfd: pytest.CaptureFixture[str]
) -> None:
    rtx.clear_errors()
    assert rtx.first_error() == "it gave no reason"
    severity = rtx.trt.ILogger.Severity
    rtx.logger.log(severity.WARNING, "mind this")
    rtx.logger.log(severity.ERROR, "broken\n (In build at /_src/builder/build.cpp:25)")
    for _ in range(2 * MAX_ERRORS):
        rtx.logger.log(severity.INTERNAL_ERROR, "and so on")
    assert rtx.first_error().startswith("broken")
    assert "/_src" not in rtx.first_error()
    assert len(rtx.logger.errors) == MAX_ERRORS
    rtx.clear_errors()
    assert rtx.logger.errors == []
    assert capfd.readouterr() == ("", "")
