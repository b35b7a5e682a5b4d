"""Times to key frames that a render takes as they are."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from giffusion.engine.audio.key_frames import format_marks, marked_frames
from giffusion.engine.settings import RenderSettings
from giffusion.engine.timelines.timeline import Timeline

TIMES = st.lists(st.fractions(0, 100, max_denominator=22050), max_size=30)
RATES = st.sampled_from([Fraction(24), Fraction(24000, 1001), Fraction(1, 3), Fraction(60)])


@given(TIMES, RATES, st.integers(1, 3000))
def test_frames_are_the_nearest_to_their_times(
    times_s: list[Fraction], fps: Fraction, num_frames: int
) -> None:
    marks = marked_frames(times_s, fps, num_frames)
    frames = [mark.frame for mark in marks]
    assert frames == sorted(set(frames))
    assert (frames[0], frames[-1]) == (0, num_frames - 1)
    for mark in marks:
        assert abs(mark.time_s * fps - mark.frame) <= Fraction(1, 2)
    for time_s in times_s:
        if time_s * fps < num_frames - 1:
            assert any(abs(time_s * fps - frame) <= Fraction(1, 2) for frame in frames)


def test_the_text_is_frame_and_time() -> None:
    times_s = [Fraction(1, 2), Fraction(51, 100), Fraction(2)]
    marks = marked_frames(times_s, Fraction(24), 61)
    assert (
        format_marks(marks, Fraction(24))
        == "# 24 frames a second\n0: 0.00s\n12: 0.50s\n48: 2.00s\n60: 2.50s\n"
    )


def test_of_two_frames_that_are_as_near_it_is_the_later() -> None:
    # As times in key-frame text: 1 / 48 s is the middle between frames 0 and 1.
    marks = marked_frames([Fraction(1, 48)], Fraction(24), 10)
    assert [mark.frame for mark in marks] == [0, 1, 9]


def test_a_render_takes_the_text_as_it_is() -> None:
    fps = Fraction(24000, 1001)
    marks = marked_frames([Fraction(n, 3) for n in range(1, 30)], fps, 240)
    timeline = Timeline.from_text(format_marks(marks, fps), RenderSettings(fps=fps))
    assert [key.frame for key in timeline.key_frames] == [mark.frame for mark in marks]
    assert len(timeline) == 240


def test_one_frame_is_one_line() -> None:
    text = format_marks(marked_frames([], Fraction(24), 1), Fraction(24))
    assert text == "# 24 frames a second\n0: 0.00s\n"
