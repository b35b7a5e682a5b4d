"""Samples as FFmpeg decodes them → float32, fewer channels, another rate. No files.

Called by `samples.py` and `sound.py`. The invariant: nothing here shifts a sample: the first one
that comes out is at the time of the first one that went in, whatever the rates.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame

Samples: TypeAlias = NDArray[np.float32]  # (channels, n)

_CENTRE = float(np.sqrt(0.5))
_SUBWOOFERS = ("LFE", "LFE2")


def samples_of(frame: AudioFrame) -> Samples:
    """Returns a decoded frame's samples, (channels, n); whole numbers become −1 … 1."""
    found: NDArray[np.generic] = frame.to_ndarray()
    if not frame.format.is_planar:
        found = found.reshape(-1, len(frame.layout.channels)).T
    with np.errstate(invalid="ignore"):  # some that is not a number
        levels: NDArray[np.float64] = np.asarray(found, np.float64)
    if found.dtype.kind == "u":
        levels = levels - 128
    if found.dtype.kind in "ui":
        levels = levels / 2.0 ** (8 * found.dtype.itemsize - 1)
    return levels.astype(np.float32)


def mixed(samples: Samples, names: Sequence[str], num_channels: int | None) -> Samples:
    """Returns samples with as many channels as asked for.

    One channel is the mean of the two of stereo; what has more is mixed to stereo first. Mono
    becomes stereo as it is, on both sides.

    Args:
        samples: (channels, n).
        names: FFmpeg's names of the channels, such as `FL`, `FR`, `FC`; unknown ones are a centre.
        num_channels: 1, 2, or None for those there are.

    Returns:
        (num_channels, n).
    """
    if num_channels is None or num_channels == len(samples):
        return samples
    if len(samples) > 2:
        samples = np.asarray(stereo_weights(names) @ samples, np.float32)
    if num_channels == 1:
        return np.asarray(samples.mean(axis=0, keepdims=True), np.float32)
    return np.repeat(samples, 2, axis=0) if len(samples) == 1 else samples


def stereo_weights(names: Sequence[str]) -> Samples:
    """Returns the (2, channels) weights by which channels are mixed to stereo.

    Front left and right count 1, centres and surrounds √½, the subwoofer 0, as in ITU-R BS.775; all
    is divided by the larger sum, so that nothing can clip.
    """
    weights = np.array([_weights(name) for name in names], np.float32).T
    return np.asarray(weights / max(float(weights.sum(axis=1).max()), _CENTRE), np.float32)


def _weights(name: str) -> tuple[float, float]:
    if name in _SUBWOOFERS:
        return 0.0, 0.0
    level = 1.0 if name in ("FL", "FR", "DL", "DR") else _CENTRE
    if name.endswith("L"):
        return level, 0.0
    if name.endswith("R"):
        return 0.0, level
    return _CENTRE, _CENTRE


class Resampler:
    """Changes the rate of a stream of samples, by FFmpeg's swresample.

    Args:
        num_channels: of what comes in, and out.
        rate: samples a second that come in.
        new_rate: samples a second that go out.
    """

    def __init__(self, num_channels: int, rate: int, new_rate: int) -> None:
        from av.audio.resampler import AudioResampler

        self._rate, self._new_rate = rate, new_rate
        self._num_in = self._num_out = 0
        # A channel each: swresample has no names for the channels of some files, and needs them.
        self._channels = [
            AudioResampler(format="fltp", layout="mono", rate=new_rate) for _ in range(num_channels)
        ]

    def write(self, samples: Samples) -> Samples:
        """Takes the next samples; returns those that are known by now."""
        self._num_in += samples.shape[1]
        return self._counted(np.stack([*map(self._through, range(len(samples)), samples)]))

    def rest(self) -> Samples:
        """Returns what is left, so that all have the duration of what came in, to half a sample."""
        wanted = round(Fraction(self._num_in * self._new_rate, self._rate)) - self._num_out
        if not self._num_in:
            return np.zeros((len(self._channels), 0), np.float32)
        ends = np.stack([self._through(index, None) for index in range(len(self._channels))])
        missing = max(wanted - ends.shape[1], 0)
        return self._counted(np.pad(ends, ((0, 0), (0, missing)))[:, :wanted])

    def _through(self, channel: int, samples: Samples | None) -> Samples:
        frame = None if samples is None else self._frame(samples)
        found = [out.to_ndarray()[0] for out in self._channels[channel].resample(frame)]
        return np.concatenate(found, dtype=np.float32) if found else np.zeros(0, np.float32)

    def _frame(self, samples: Samples) -> AudioFrame:
        from av.audio.frame import AudioFrame

        frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), "fltp", "mono")
        frame.sample_rate = self._rate
        return frame

    def _counted(self, samples: Samples) -> Samples:
        self._num_out += samples.shape[1]
        return samples
