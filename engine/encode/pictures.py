"""A frame as FFmpeg's picture, without a copy and without a conversion.

Called by `video.py` and `probe.py`. Frames in host and in device memory take the same way in,
DLPack, so that what tests on the CPU prove of it holds on a device. The invariant: a picture keeps
its frame's memory alive for as long as an encoder looks at it.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from av.video.frame import CudaContext, VideoFrame
from numpy.typing import NDArray

from giffusion.engine.encode.encoders import EncoderChoice
from giffusion.engine.encode.formats import Size
from giffusion.engine.frames import Frame

ON_DEVICE_FORMAT = "cuda"
"""FFmpeg's pixel format of pictures in the memory of an NVIDIA GPU."""
_DLPACK_CUDA = 2


class PictureMaker:
    """Makes one encoder's pictures; used by one thread at a time.

    Args:
        choice: the encoder.
        size: (width, height) of every frame, in pixels.
    """

    def __init__(self, choice: EncoderChoice, size: Size) -> None:
        self._choice = choice
        self._size = size
        self._context: CudaContext | None = None

    @property
    def format(self) -> str:
        """FFmpeg's pixel format of the pictures."""
        if self._choice.on_device:
            return ON_DEVICE_FORMAT
        return "yuv420p" if self._choice.info.planar else "nv12"

    def picture(self, frame: Frame) -> VideoFrame:
        """Returns an NV12 frame as a picture over the same memory.

        Planar formats take their chroma as a copy.
        """
        width, height = self._size
        if self._choice.info.planar:
            assert isinstance(frame, np.ndarray), "planar formats take arrays"
            planes = (frame[:height], *_chroma_planes(frame[height:]))
            return VideoFrame.from_dlpack(planes, format="yuv420p", width=width, height=height)
        return VideoFrame.from_dlpack(
            (frame[:height], frame[height:]),
            format="nv12",
            width=width,
            height=height,
            cuda_context=self._context_of(frame),
        )

    def _context_of(self, frame: Frame) -> CudaContext | None:
        kind, ordinal = frame.__dlpack_device__()
        if kind != _DLPACK_CUDA:
            return None
        if self._context is None:
            from giffusion.engine.runtimes.cuda.bindings import open_cuda

            # FFmpeg takes the context that is current in this thread at its first picture.
            open_cuda(ordinal).make_current()
            self._context = _cuda_context(ordinal)
        return self._context


def _chroma_planes(chroma: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Splits (H/2, W) of interleaved Cb and Cr into two planes of (H/2, W/2)."""
    # Not ascontiguousarray: it leaves a single column its strides, which DLPack's reader refuses.
    return chroma[:, 0::2].copy(), chroma[:, 1::2].copy()


@cache
def _cuda_context(ordinal: int) -> CudaContext:
    """Returns FFmpeg's hold on a device, one for all encoders of the process.

    Of its own accord FFmpeg makes a second context, or refuses the device's primary one because
    its flags are not those that it would have set.
    """
    return CudaContext(ordinal, primary_ctx=False, current_ctx=True)
