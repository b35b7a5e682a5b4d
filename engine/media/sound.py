"""A sound file, or the sound of a film, as blocks of samples on the file's own clock.

Called by the analysis of sound and by the encoders of files that carry sound. PyAV is loaded when a
file is opened. The invariant: sample k is at start + k / rate of what a player would show, so that
encoders' delays are left out, gaps are silence and overlaps are cut; memory does not grow with a
file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from giffusion.engine.media.mixing import Resampler, Samples
from giffusion.engine.media.samples import SoundSource, opened_sound

__all__ = ["Samples", "SoundInfo", "sound_blocks", "sound_info"]


@dataclass(frozen=True, slots=True)
class SoundInfo:
    """What a file's sound is.

    Args:
        rate: samples a second.
        num_channels: 1 is mono, 2 stereo.
        duration_s: when it ends, as the file says; estimated where a format does not say it
            exactly, None where nothing is known.
    """

    rate: int
    num_channels: int
    duration_s: Fraction | None


def sound_info(path: Path) -> SoundInfo:
    """Looks at a file's sound, of which the first samples are decoded.

    Raises:
        InputError: the file cannot be read, has no sound, or sound that is none.
    """
    with opened_sound(path) as source:
        return SoundInfo(source.rate, source.num_channels, source.end_s)


def sound_blocks(
    path: Path,
    *,
    start_s: Fraction = Fraction(0),
    end_s: Fraction | None = None,
    rate: int | None = None,
    num_channels: int | None = None,
) -> Iterator[Samples]:
    """Reads a file's sound.

    Args:
        path: a sound file, or a film; of several sounds the one that players choose.
        start_s: where to begin, in seconds after a film's first frame, or after the first sample of
            a file without film; the nearest sample is the first.
        end_s: where to end, or None for the end of the sound.
        rate: samples a second, or None for the file's.
        num_channels: 1, 2, or None for the file's; see `mixing.mixed`.

    Yields:
        Blocks (channels, n) float32, of a second or less. Their concatenation's sample k is at
        start_s + k / rate. Past the end of the sound nothing comes.

    Raises:
        InputError: as `sound_info`, or the file breaks on the way: it is damaged, cut short,
            changes its rate, or jumps by more than an hour.
    """
    assert num_channels in (None, 1, 2), num_channels
    with opened_sound(path) as source:
        first = max(round(start_s * source.rate), 0)
        end = None if end_s is None else round(end_s * source.rate)
        # Not the source's own blocks: a frame may have 20 samples, or a minute.
        blocks = _in_seconds(source.samples(first, end, num_channels), source.rate)
        if rate is None or rate == source.rate:
            yield from blocks
        else:
            yield from _resampled(blocks, source, num_channels or source.num_channels, rate)


def _resampled(
    blocks: Iterator[Samples], source: SoundSource, num_channels: int, rate: int
) -> Iterator[Samples]:
    resampler = Resampler(num_channels, source.rate, rate)

    def results() -> Iterator[Samples]:
        for block in blocks:
            yield resampler.write(block)
        yield resampler.rest()

    return _in_seconds(results(), rate)


def _in_seconds(blocks: Iterator[Samples], num_samples: int) -> Iterator[Samples]:
    """Joins and splits blocks so that all but the last have as many samples."""
    waiting: list[Samples] = []
    count = 0
    for block in blocks:
        while count + block.shape[1] >= num_samples:
            taken = num_samples - count
            yield np.concatenate([*waiting, block[:, :taken]], axis=1)
            waiting, count, block = [], 0, block[:, taken:]
        if block.shape[1]:
            waiting.append(block)
            count += block.shape[1]
    if count:
        yield np.concatenate(waiting, axis=1)
