"""Speech, by a synthesiser where there is one: words are found where they begin."""

from __future__ import annotations

import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from giffusion.engine.audio.analysis import analyse
from giffusion.engine.audio.key_frames import marked_frames
from giffusion.engine.audio.options import AudioOptions
from giffusion.engine.audio.spectra import RATE
from giffusion.engine.media.sound import sound_blocks
from tests.engine.audio.sounds import write_wav

WORDS = ("paint", "the", "tall", "castle")
TIMES_S = (0.5, 1.5, 2.25, 3.5)


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Words that begin at known times, with silence between them."""
    espeak = shutil.which("espeak-ng")
    if espeak is None:
        pytest.skip("espeak-ng is not installed")
    folder = tmp_path_factory.mktemp("speech")
    samples = np.zeros(5 * RATE, np.float32)
    for word, time_s in zip(WORDS, TIMES_S, strict=True):
        spoken = folder / f"{word}.wav"
        subprocess.run([espeak, "-w", str(spoken), word], check=True, timeout=20)
        (voice,) = np.concatenate(list(sound_blocks(spoken, rate=RATE, num_channels=1)), axis=1)
        heard = np.flatnonzero(np.abs(voice) > 0.02 * np.abs(voice).max())
        voice = voice[heard[0] : heard[-1]]
        at = round(time_s * RATE)
        samples[at : at + len(voice)] = voice
    return write_wav(folder / "speech.wav", samples)


def test_words_are_found_where_they_begin(speech: Path) -> None:
    fps = Fraction(24)
    onsets = [float(time_s) for time_s in analyse(speech, fps, AudioOptions()).onsets()]
    for time_s in TIMES_S:
        assert min(abs(onset - time_s) for onset in onsets) < 1 / 24
    # Nothing is heard in the silence before a word.
    before = [min(t - onset for onset in onsets if onset < t) for t in TIMES_S[1:]]
    assert min(before) > 0.2
    frames = [mark.frame for mark in marked_frames(map(Fraction, onsets), fps, 120)]
    assert {round(time_s * 24) for time_s in TIMES_S} <= {f + d for f in frames for d in (-1, 0, 1)}


def test_the_curve_is_silent_between_words(speech: Path) -> None:
    curve = analyse(speech, Fraction(24), AudioOptions()).curve
    assert max(curve.values) == 1
    assert max(curve.values[:10]) < 1e-6
    assert all(max(curve.values[int(t * 24) : int(t * 24) + 8]) > 0.01 for t in TIMES_S)
