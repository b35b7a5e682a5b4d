"""The strength of onsets to the beats that it follows.

D. Ellis, "Beat Tracking by Dynamic Programming", 2007, at the tempo at which the strength repeats
itself most, near 120 beats a minute; the constants are librosa's. Called by `analysis.py`. The
invariant: beats ascend, and where nothing begins there are none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.audio.onsets import STEPS_PER_S, Strength, onset_steps

USUAL_BPM = 120.0
MAX_BPM = 320.0
# How hard beats hold on to the tempo.
_TIGHTNESS = 100.0
_STRETCH = round(8 * STEPS_PER_S)


def beat_steps(strength: Strength) -> list[int]:
    """Finds the steps of beats.

    Args:
        strength: of onsets, (steps,).
    """
    # The second is a sound of a few samples.
    if not onset_steps(strength) or strength.std() == 0:
        return []
    period = round(60 * STEPS_PER_S / tempo_of(strength))
    score = _local_score(strength, period)
    totals, links = _best_chains(score, period)
    beats = [_last_beat(totals)]
    while (link := links[beats[-1]]) >= 0:
        beats.append(link)
    return _without_weak_ends(beats[::-1], score)


def tempo_of(strength: Strength) -> float:
    """Returns the tempo in beats a minute.

    Args:
        strength: of onsets, (steps,), some of it above 0.
    """
    lags = np.arange(1, _STRETCH)
    bpm = 60 * STEPS_PER_S / lags
    # An octave away from the usual tempo is one standard deviation.
    prior = -0.5 * np.log2(bpm / USUAL_BPM) ** 2
    prior[bpm >= MAX_BPM] = -np.inf
    likeness = np.log1p(1e6 * _self_likeness(strength)[1:]) + prior
    return float(bpm[np.argmax(likeness)])


def _self_likeness(strength: Strength) -> NDArray[np.float64]:
    """Returns (_STRETCH,): how alike 8-second stretches are to themselves so many steps later."""
    half = _STRETCH // 2
    padded = np.pad(strength, (half, _STRETCH - half))
    stretches = np.lib.stride_tricks.sliding_window_view(padded, _STRETCH)[:: round(STEPS_PER_S)]
    total = np.zeros(_STRETCH)
    for stretch in stretches:
        spectrum = np.fft.rfft(stretch * np.hanning(_STRETCH), 2 * _STRETCH)
        likeness = np.fft.irfft(np.abs(spectrum) ** 2)[:_STRETCH]
        if likeness[0] > 0:
            total += np.maximum(0, likeness) / likeness[0]
    return total / len(stretches)


def _local_score(strength: Strength, period: int) -> Strength:
    """Returns how good a beat is at each step by itself, in standard deviations of the strength."""
    distance = np.arange(-period, period + 1) * (32 / period)
    scaled = strength / strength.std()
    return np.convolve(scaled, np.exp(-0.5 * distance**2))[period : period + len(strength)]


def _best_chains(score: Strength, period: int) -> tuple[Strength, list[int]]:
    """Returns for each step the score of the best chain of beats up to it, and the beat before."""
    nearest, furthest = max(1, round(period / 2)), 2 * period
    lags = np.arange(furthest, nearest - 1, -1)
    penalty = _TIGHTNESS * np.log(lags / period) ** 2
    # Before the beginning there is nothing to come from.
    totals = np.full(furthest + len(score), -np.inf)
    links: list[int] = []
    threshold, begun = 0.01 * score.max(), False
    for step, own in enumerate(score.tolist()):
        chains = totals[step : step + len(lags)] - penalty
        best = int(chains.argmax())
        has_before = chains[best] > -np.inf
        totals[furthest + step] = own + (chains[best] if has_before else 0)
        begun = begun or own >= threshold
        links.append(step - int(lags[best]) if begun and has_before else -1)
    return totals[furthest:], links


def _last_beat(totals: Strength) -> int:
    """Returns the last peak that is not far below the others."""
    after = np.append(totals[1:], -np.inf)
    before = np.insert(totals[:-1], 0, np.inf)
    peaks = np.flatnonzero((totals > before) & (totals >= after))
    if peaks.size == 0:
        return int(totals.argmax())
    high = peaks[totals[peaks] >= 0.5 * np.median(totals[peaks])]
    return int(high[-1])


def _without_weak_ends(beats: list[int], score: Strength) -> list[int]:
    """Leaves out beats before the first and after the last that is about as strong as others."""
    smooth = np.convolve(score[beats], np.hanning(5))[2 : 2 + len(beats)]
    threshold = 0.5 * np.sqrt((smooth**2).mean())
    strong = np.flatnonzero(smooth > threshold)
    return beats[strong[0] : strong[-1] + 1] if strong.size else []
