"""A build's progress as one percentage, out of phases within phases."""

from __future__ import annotations

from giffusion.engine.runtimes.tensorrt.monitor import Phases


def test_steps_of_a_phase_are_shares_of_the_whole() -> None:
    phases = Phases()
    phases.start("build", None, 4)
    assert [phases.step("build", step) for step in range(4)] == [25, 50, 75, 100]


def test_a_phase_within_another_fills_its_next_step() -> None:
    phases = Phases()
    phases.start("build", None, 2)
    assert phases.step("build", 0) == 50
    phases.start("tactics", "build", 5)
    assert [phases.step("tactics", step) for step in range(5)] == [60, 70, 80, 90, 100]


def test_phases_side_by_side_count_by_the_one_that_is_ahead() -> None:
    phases = Phases()
    phases.start("build", None, 1)
    phases.start("left", "build", 4)
    phases.start("right", "build", 10)
    assert phases.step("left", 1) == 50
    assert phases.step("right", 2) is None
    assert phases.step("right", 6) == 70


def test_the_percentage_never_falls() -> None:
    phases = Phases()
    phases.start("build", None, 2)
    phases.start("first", "build", 2)
    assert phases.step("first", 1) == 50
    phases.finish("first")
    # Its step of the whole has not been told yet.
    assert phases.step("build", 0) is None
    phases.finish("build")
    phases.start("another build", None, 10)
    assert phases.step("another build", 0) is None


def test_what_tensorrt_leaves_out_or_gets_wrong_does_no_harm() -> None:
    phases = Phases()
    assert phases.step("never started", 3) is None
    phases.finish("never started")
    phases.start("empty", None, 0)
    assert phases.step("empty", 7) == 100
