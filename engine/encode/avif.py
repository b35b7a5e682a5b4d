"""Animated AVIF: AV1 pictures set aside as they are encoded, then put behind an index of them.

Called by `formats.py`. The container is written here: FFmpeg's muxer keeps the whole file in memory
and has no place for the text. The invariant: a file has exactly the frames that were written, each
at its exact time, and memory grows by the few bytes a frame that the index takes.

Source: AOMedia, AV1 Image File Format; `avif_boxes.py` lays the index out.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from av.packet import Packet
from av.video.stream import VideoStream

from giffusion.engine.encode.avif_boxes import TRANSFER, Animation, head
from giffusion.engine.encode.codec import configure, options
from giffusion.engine.encode.containers import MP4, open_video
from giffusion.engine.encode.formats import Progress, VideoSpec
from giffusion.engine.encode.isobmff import read_xmp_text
from giffusion.engine.encode.pictures import PictureMaker
from giffusion.engine.encode.spool import Spool
from giffusion.engine.encode.xmp import to_xmp
from giffusion.engine.errors import RenderError
from giffusion.engine.frames import Frame

VideoPacket: TypeAlias = "Packet[VideoStream]"
_TEMPORAL_DELIMITER = b"\x12\x00"


class AvifEncoder:
    """Encodes NV12 frames into an animated AVIF that loops forever; an `Encoder`.

    Args:
        path: the file to write; its folder also takes the encoded frames until the end.
        spec: sizes are even, and AVIF can express the rate.
    """

    def __init__(self, path: Path, spec: VideoSpec) -> None:
        self._path = path.absolute()
        self._spec = spec
        self._num_frames = 0
        self._pictures = PictureMaker(spec.encoder, spec.size)
        info = spec.encoder.info

        def set_up(stream: VideoStream) -> None:
            configure(stream.codec_context, info, spec.size, self._pictures.format)
            stream.codec_context.color_trc = TRANSFER

        settings = options(info, spec.quality)
        self._spool = Spool(self._path.parent, info.name, spec.fps, settings, set_up)

    def write(self, frame: Frame) -> None:
        self._spool.write(self._pictures.picture(frame))
        self._num_frames += 1

    def finish(self, progress: Progress | None = None) -> None:
        animation = self._index()
        with self._path.open("wb") as file:
            file.write(head(animation))
            file.write(animation.xmp)
            for packet in self._packets():
                file.write(_sample(packet))
        _verify(self._path, self._num_frames, self._spec)

    def discard(self) -> None:
        self._spool.close()

    def _index(self) -> Animation:
        """Looks through the encoded frames once for what the index says of them."""
        sizes, key_frames = array("I"), array("I")
        for number, packet in enumerate(self._packets(), 1):
            sizes.append(len(_sample(packet)))
            if packet.is_keyframe:
                key_frames.append(number)
        with self._spool.reading() as container:
            config = container.streams.video[0].codec_context.extradata
        assert config is not None, "AV1 in Matroska has its configuration"
        xmp = to_xmp(self._spec.metadata) if self._spec.metadata else b""
        return Animation(self._spec.size, self._spec.fps, sizes, key_frames, bytes(config), xmp)

    def _packets(self) -> Iterator[VideoPacket]:
        with self._spool.reading() as container:
            for packet in container.demux(video=0):
                if packet.size:
                    yield packet


def _sample(packet: VideoPacket) -> bytes:
    """Returns a packet as AVIF stores it: without what only divides a stream."""
    return bytes(packet).removeprefix(_TEMPORAL_DELIMITER)


def _verify(path: Path, num_frames: int, spec: VideoSpec) -> None:
    """Reads the file back, since a full disk can go unnoticed until then."""
    with open_video(path, MP4) as file:
        # FFmpeg counts the still picture as a stream too, before the animation.
        stream = file.streams.video[-1]
        broken, found_frames = False, 0
        for packet in file.demux(stream):
            found_frames += bool(packet.size)
            broken |= packet.is_corrupt
        found = (stream.width, stream.height), stream.average_rate, found_frames
    expected = spec.size, spec.fps, num_frames
    if broken or found != expected or (read_xmp_text(path) or "") != spec.metadata:
        raise RenderError(f"the AVIF reads back as {found}, expected {expected}: render it again")
