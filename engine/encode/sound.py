"""What of the user's sound a film carries, and as what: the part, the codecs, the check beforehand.

Called by the front ends, which check a sound before anything is rendered, and by the modules beside
it. PyAV is loaded when a file is opened. The invariant: the first sample of the part is heard with
the first frame, and the sound never lasts longer than the frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from giffusion.engine.errors import InputError
from giffusion.engine.media.parts import seconds
from giffusion.engine.media.sound import SoundInfo, sound_blocks, sound_info


@dataclass(frozen=True, slots=True)
class SoundTrack:
    """The part of a file's sound that is heard in an output.

    Args:
        path: a sound file, or a film with sound.
        start_s: what is heard with the first frame, in seconds after a film's first frame, or after
            the first sample of a file without film; 0 or more.
        end_s: where the part ends at the latest; None for the end of the sound.
    """

    path: Path
    start_s: Fraction = Fraction(0)
    end_s: Fraction | None = None


@dataclass(frozen=True, slots=True)
class SoundCodec:
    """What a container has its sound in.

    Args:
        name: FFmpeg's name of the encoder.
        sample_format: FFmpeg's name of what it takes.
        rates: samples a second that it takes, ascending.
        channel_bits: bits a second that a channel gets at most.
        sample_bits: and a sample of a channel at most; what is for telephones needs less.
    """

    name: str
    sample_format: str
    rates: tuple[int, ...]
    channel_bits: int
    sample_bits: int

    def rate_for(self, rate: int) -> int:
        """Returns the rate that a sound gets: its own, or the next that loses nothing.

        Above all rates it is the largest that divides it, such as 88,200 for 176,400.
        """
        above = [known for known in self.rates if known >= rate]
        if above:
            return above[0]
        high = [known for known in self.rates if 2 * known > self.rates[-1]]
        return max((known for known in high if rate % known == 0), default=high[-1])

    def bits_for(self, rate: int, num_channels: int) -> int:
        """Returns bits a second for a rate of its own and a number of channels."""
        return num_channels * min(self.channel_bits, self.sample_bits * rate)


_AAC_RATES = (
    *(7_350, 8_000, 11_025, 12_000, 16_000, 22_050, 24_000),
    *(32_000, 44_100, 48_000, 64_000, 88_200, 96_000),
)
AAC = SoundCodec("aac", "fltp", _AAC_RATES, channel_bits=96_000, sample_bits=4)
OPUS = SoundCodec("libopus", "flt", (48_000,), channel_bits=64_000, sample_bits=4)


def num_heard(info: SoundInfo) -> int:
    """Returns how many channels of a sound an output has: one or two."""
    return min(info.num_channels, 2)


def check_sound(track: SoundTrack, duration_s: Fraction | None = None) -> list[str]:
    """Reads all that will be heard, before anything is rendered: some hundred times as fast.

    Args:
        track: the part.
        duration_s: of the frames, where it is known; more is not read.

    Returns:
        Sentences that say what will be other than in the file, none where nothing is.

    Raises:
        InputError: the file cannot be read to the end of the part, or nothing is heard in it.
    """
    info = sound_info(track.path)
    end_s = end_of(track, duration_s)
    blocks = sound_blocks(track.path, start_s=track.start_s, end_s=end_s)
    heard_s = Fraction(sum(block.shape[1] for block in blocks), info.rate)
    if not heard_s:
        raise InputError(
            f"{track.path} has no sound from {seconds(track.start_s)} to "
            f"{'its end' if end_s is None else seconds(end_s)}: expected an earlier start"
        )
    notes = []
    if info.num_channels > num_heard(info):
        notes.append(f"{track.path}: {info.num_channels} channels are mixed to stereo")
    # A film's sound may well end within its last frame.
    if duration_s is not None and heard_s < duration_s - 1:
        notes.append(
            f"{track.path}: the sound ends after {seconds(heard_s)} of {seconds(duration_s)}"
        )
    return notes


def end_of(track: SoundTrack, duration_s: Fraction | None) -> Fraction | None:
    """Returns where a part ends with frames that last so long, on the clock of its file."""
    ends = [track.end_s, None if duration_s is None else track.start_s + duration_s]
    return min((end for end in ends if end is not None), default=None)


def num_samples_by(duration_s: Fraction, rate: int) -> int:
    """Returns how many whole samples fit into a time, so that they never last longer."""
    return math.floor(duration_s * rate)
