"""Sounds that the tests make themselves, and files of them."""

from __future__ import annotations

import wave
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.audio.spectra import RATE

Samples = NDArray[np.float32]


def sine(hz: float, seconds: float, rate: int = RATE) -> Samples:
    times = np.arange(round(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * hz * times)).astype(np.float32)


def clicks(times_s: Iterable[float | Fraction], seconds: float, rate: int = RATE) -> Samples:
    """A sound with a burst of noise, 5 ms, at each of some times."""
    burst = np.random.default_rng(3).uniform(-0.8, 0.8, rate // 200).astype(np.float32)
    samples = np.zeros(round(seconds * rate), np.float32)
    for time_s in times_s:
        begin = round(time_s * rate)
        end = min(begin + len(burst), len(samples))
        samples[begin:end] += burst[: end - begin]
    return samples


def blocks_of(samples: Samples, size: int) -> Iterator[Samples]:
    for begin in range(0, len(samples), size):
        yield samples[begin : begin + size]


def write_wav(path: Path, *channels: Samples, rate: int = RATE) -> Path:
    """Writes 16-bit sound, one array a channel."""
    frames = np.stack(channels, axis=1)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.round(frames * 32767).astype("<i2").tobytes())
    return path
