"""The sound of a film, encoded along with its frames.

Called by `video.py`, in the writer's thread: after each frame it asks for the sound up to that
frame's end, so that neither has to wait for the other in memory. The invariant: the packets hold as
many whole samples as fit into the frames written, or fewer where the sound ends, and the same file
gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
from av.audio.frame import AudioFrame
from av.codec.context import Flags
from av.packet import Packet

from giffusion.engine.encode.sound import (
    SoundCodec,
    SoundTrack,
    end_of,
    num_heard,
    num_samples_by,
)
from giffusion.engine.media.sound import Samples, sound_blocks, sound_info

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import OutputContainer

AudioPacket: TypeAlias = "Packet[AudioStream]"


class SoundEncoder:
    """Encodes a part of a sound as the frames beside it are written.

    Args:
        track: the part.
        codec: what it is encoded as.
        duration_s: of all frames; nothing beyond is read.

    Raises:
        InputError: the sound cannot be read.
    """

    def __init__(self, track: SoundTrack, codec: SoundCodec, duration_s: Fraction) -> None:
        info = sound_info(track.path)
        self.num_samples = self.num_packets = 0
        self.rate = codec.rate_for(info.rate)
        self._codec = codec
        self._num_channels = num_heard(info)
        self._layout = "mono" if self._num_channels == 1 else "stereo"
        self._waiting: list[Samples] = []
        self._stream: AudioStream | None = None
        self._blocks: Iterator[Samples] = sound_blocks(
            track.path,
            start_s=track.start_s,
            end_s=end_of(track, duration_s),
            rate=self.rate,
            num_channels=self._num_channels,
        )

    def add_to(self, output: OutputContainer) -> None:
        """Gives a file, before anything is written to it, a stream for the sound."""
        name, rate = self._codec.name, self.rate
        self._stream = cast("AudioStream", output.add_stream(name, rate=rate, layout=self._layout))
        context = self._stream.codec_context
        context.format = self._codec.sample_format
        context.bit_rate = self._codec.bits_for(rate, self._num_channels)
        context.thread_count = 1
        # Without it AAC has the version of its encoder in it.
        context.flags |= Flags.bitexact

    def until(self, time_s: Fraction) -> list[AudioPacket]:
        """Encodes up to a time of the film.

        Raises:
            InputError: the sound breaks on the way.
        """
        assert self._stream is not None, "it has a stream by now"
        packets: list[AudioPacket] = []
        for samples in self._taken(num_samples_by(time_s, self.rate) - self.num_samples):
            frame = AudioFrame.from_ndarray(samples, "fltp", self._layout)
            frame.sample_rate = self.rate
            frame.pts, frame.time_base = self.num_samples, Fraction(1, self.rate)
            self.num_samples += samples.shape[1]
            packets += self._stream.encode(frame)
        return self._counted(packets)

    def rest(self) -> list[AudioPacket]:
        """Returns what the encoder kept back; nothing can be encoded after that."""
        assert self._stream is not None, "it has a stream by now"
        return self._counted(self._stream.encode(None))

    def close(self) -> None:
        """Lets go of the file that is read; may be called twice."""
        self._waiting, self._blocks, self._stream = [], iter(()), None

    def _counted(self, packets: list[AudioPacket]) -> list[AudioPacket]:
        self.num_packets += len(packets)
        return packets

    def _taken(self, count: int) -> Iterator[Samples]:
        """Yields the next samples, so many or those there are."""
        while count > 0:
            block = self._waiting.pop() if self._waiting else next(self._blocks, None)
            if block is None:
                return
            if block.shape[1] > count:
                self._waiting.append(block[:, count:])
            taken = np.ascontiguousarray(block[:, :count])
            count -= taken.shape[1]
            yield taken
