"""The encoders by name, each with the settings that it always has, as one table.

Called by the modules beside it and by `doctor`. The invariant: everything that the bits of a file
depend on besides its frames stands in this table, threads included, so that the same frames give
the same bytes on machines with another number of cores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from giffusion.engine.frames import PixelFormat

AUTO = "auto"
NUM_THREADS = 4
NVENC_MIN_SIDE = 145
"""NVENC refuses pictures below 145x145 with one or the other codec and generation."""

# Measured: without cpu-independent, x264 differed from run to run on a processor with AVX-512.
# veryfast: half the processor time of medium and smaller files, for 0.3 to 0.8 dB.
_X264 = {"crf": "18", "preset": "veryfast", "x264-params": "cpu-independent=1"}
# Measured on moving textures at 512x512: crf 24 comes within 0.5 dB of x264 at crf 18, in 0.86 of
# its bytes and up to twice its processor time; from preset 10 on SVT-AV1 warns of artifacts. Its
# bits do not depend on lp, its number of threads.
_SVT_AV1 = {"crf": "24", "preset": "8", "svtav1-params": f"lp={NUM_THREADS}"}
# A constant quantizer means the same on every generation of the hardware. Measured with x264, x265
# and SVT-AV1 at those of P-frames, on those textures: these come nearest to x264 at crf 18. Steps
# of I-frames are 1.4 times finer and of B-frames 1.3 times coarser, as in x264 and x265; from one
# number, `qp`, FFmpeg makes B-frames more than twice as coarse.
_NVENC = {"preset": "p4", "tune": "hq", "rc": "constqp", "g": "250"}
_H264_NVENC = {**_NVENC, "init_qpI": "20", "init_qpP": "23", "init_qpB": "25", "profile": "high"}
_HEVC_NVENC = {**_NVENC, "init_qpI": "21", "init_qpP": "24", "init_qpB": "26"}
_AV1_NVENC = {**_NVENC, "init_qpI": "79", "init_qpP": "104", "init_qpB": "121"}


@dataclass(frozen=True, slots=True)
class EncoderInfo:
    """One encoder.

    Args:
        name: FFmpeg's name of it, or `gif`.
        use: what it is for, a few words.
        pixel_format: what its frames are given in.
        options: FFmpeg's options.
        planar: it has Cb and Cr in planes of their own, so NV12's chroma is split for it.
        on_nvidia: it is a part of NVIDIA's hardware, and reads frames in device memory.
        min_side: pixels that a picture's sides have at least.
        max_fps: frames a second that it takes at most; None for any number.
        tag: the four letters that an MP4 file names the codec by, None for FFmpeg's choice.
        num_threads: threads that FFmpeg gives it; None where it has its own.
    """

    name: str
    use: str
    pixel_format: PixelFormat = PixelFormat.NV12
    options: Mapping[str, str] = field(default_factory=dict)
    planar: bool = False
    on_nvidia: bool = False
    min_side: int = 2
    max_fps: int | None = None
    tag: str | None = None
    num_threads: int | None = None


@dataclass(frozen=True, slots=True)
class EncoderChoice:
    """The encoder of one file.

    Args:
        info: which.
        on_device: it takes frames in device memory; others take arrays.
    """

    info: EncoderInfo
    on_device: bool = False

    @property
    def name(self) -> str:
        """Its name, for `open_writer` and for what the file says about itself."""
        return self.info.name

    @property
    def pixel_format(self) -> PixelFormat:
        """What its frames are given in."""
        return self.info.pixel_format


def _nvenc(name: str, codec: str, options: Mapping[str, str], tag: str | None) -> EncoderInfo:
    use = f"{codec} by NVENC, NVIDIA's hardware"
    return EncoderInfo(name, use, options=options, on_nvidia=True, min_side=NVENC_MIN_SIDE, tag=tag)


ENCODERS: dict[str, EncoderInfo] = {
    info.name: info
    for info in (
        EncoderInfo(
            "libx264", "H.264, which everything plays", options=_X264, num_threads=NUM_THREADS
        ),
        EncoderInfo(
            "libsvtav1",
            "AV1, for smaller files",
            options=_SVT_AV1,
            planar=True,
            min_side=4,
            max_fps=240,
        ),
        _nvenc("h264_nvenc", "H.264", _H264_NVENC, None),
        # Apple's players know HEVC by this tag alone.
        _nvenc("hevc_nvenc", "HEVC", _HEVC_NVENC, "hvc1"),
        _nvenc("av1_nvenc", "AV1", _AV1_NVENC, None),
        EncoderInfo("gif", "GIF, after a lossless first pass by ffv1", PixelFormat.RGB24),
    )
}
