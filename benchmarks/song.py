"""A song made of nothing: drums and chords at a tempo, to measure or to show how sound is heard.

The invariant: the same arguments give the same samples, and every beat is where the tempo says.
"""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

RATE = 44100
CHORDS_HZ = ((220, 277.2, 329.6), (174.6, 220, 261.6), (196, 246.9, 293.7), (164.8, 207.7, 246.9))
Samples = NDArray[np.float64]


def make_song(seconds: float, bpm: float = 120, seed: int = 0) -> Samples:
    """Plays a bass drum on each beat, a snare on every second, a hat between, a chord each four.

    Args:
        seconds: its length.
        bpm: beats a minute; the first is at 0.
        seed: of the noise that snares and hats are made of.

    Returns:
        (n,) at RATE, from -1 to 1.
    """
    noise = np.random.default_rng(seed)
    song = np.zeros(round(seconds * RATE))
    beat_s = 60 / bpm
    drum, snare, hat = _drum(), _snare(noise), _hat(noise)
    chords = [_chord(chord, 4 * beat_s) for chord in CHORDS_HZ]
    for half in range(int(2 * seconds / beat_s) + 1):
        beat, between = divmod(half, 2)
        begin = round(half * beat_s / 2 * RATE)
        _add(song, begin, hat)
        if not between:
            _add(song, begin, snare if beat % 2 else drum)
            if beat % 4 == 0:
                _add(song, begin, chords[beat // 4 % 4])
    return song.clip(-1, 1)


def write_song(path: Path, seconds: float, bpm: float = 120) -> Path:
    """Writes such a song as a WAV file of 16 bits; one minute, again and again."""
    minute = (make_song(min(60, seconds), bpm) * 32767).astype("<i2")
    left = round(seconds * RATE)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        while left > 0:
            file.writeframes(minute[:left].tobytes())
            left -= len(minute)
    return path


def _times(seconds: float) -> Samples:
    return np.arange(round(seconds * RATE)) / RATE


def _drum() -> Samples:
    time = _times(0.25)
    turns = 50 * time + 2 * (1 - np.exp(-15 * time))
    sound: Samples = 0.8 * np.sin(2 * np.pi * turns) * np.exp(-14 * time)
    return sound


def _snare(noise: np.random.Generator) -> Samples:
    time = _times(0.2)
    body = 0.3 * np.sin(2 * np.pi * 190 * time)
    return (0.3 * noise.standard_normal(len(time)) + body) * np.exp(-22 * time)


def _hat(noise: np.random.Generator) -> Samples:
    time = _times(0.05)
    return 0.15 * noise.standard_normal(len(time)) * np.exp(-80 * time)


def _chord(notes_hz: tuple[float, ...], seconds: float) -> Samples:
    time = _times(seconds)
    notes = np.sin(2 * np.pi * np.outer(notes_hz, time)).sum(axis=0)
    fades: Samples = np.minimum(1, np.minimum(time, seconds - time) / 0.05)
    sound: Samples = 0.08 * notes * fades
    return sound


def _add(song: Samples, begin: int, sound: Samples) -> None:
    end = min(len(song), begin + len(sound))
    if begin < end:
        song[begin:end] += sound[: end - begin]
