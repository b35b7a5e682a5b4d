"""The encoders by name, each with the settings that it always has, as one table.

Called by the modules beside it and by `doctor`. The invariant: everything that the bits of a file
depend on besides its frames stands in this table, threads included, so that the same frames give
the same bytes on machines with another number of cores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from giffusion.engine.encode.quality import Scale
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
# fast: 0.3 dB over veryfast at the same size, for a fifth more time; crf 22 comes nearest to x264
# at crf 18. Its bits depend on how many frames it works on at once, and what it writes about itself
# (info) on the processor.
_X265 = {
    "crf": "22",
    "preset": "fast",
    "x265-params": f"pools={NUM_THREADS}:frame-threads=2:info=0:log-level=none",
}
# Without `b` at 0 crf would only be a bound. cpu-used 4: 0.3 dB under 2 in two thirds of its time.
_VP9 = {"crf": "28", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"}
# Measured: method 4 is within 3 % of 6 in three quarters of its time, and 10 % smaller than 2.
_WEBP = {"quality": "80", "method": "4"}
# Measured: 7 % more bytes than zlib's 6, in half the time.
_PNG = {"compress_level": "4"}
# A constant quantizer means the same on every generation of the hardware. Measured with x264, x265
# and SVT-AV1 at those of P-frames, on those textures: these come nearest to x264 at crf 18. Steps
# of I-frames are 1.4 times finer and of B-frames 1.3 times coarser, as in x264 and x265; from one
# number, `qp`, FFmpeg makes B-frames more than twice as coarse.
_NVENC = {"preset": "p4", "tune": "hq", "rc": "constqp", "g": "250"}
_H264_NVENC = {**_NVENC, "init_qpI": "20", "init_qpP": "23", "init_qpB": "25", "profile": "high"}
_HEVC_NVENC = {**_NVENC, "init_qpI": "21", "init_qpP": "24", "init_qpB": "26"}
_AV1_NVENC = {**_NVENC, "init_qpI": "79", "init_qpP": "104", "init_qpB": "121"}

# The best of each is short of lossless, which for several is another profile that little plays.
_X264_QUALITY = {"crf": Scale(42, 18, 4, digits=1)}
_X265_QUALITY = {"crf": Scale(44, 22, 6, digits=1)}
_AV1_QUALITY = {"crf": Scale(60, 24, 4)}
_VP9_QUALITY = {"crf": Scale(62, 28, 4)}
_WEBP_QUALITY = {"quality": Scale(5, 80, 100)}
_H264_NVENC_QUALITY = {
    "init_qpI": Scale(41, 20, 5),
    "init_qpP": Scale(44, 23, 8),
    "init_qpB": Scale(46, 25, 10),
}
_HEVC_NVENC_QUALITY = {
    "init_qpI": Scale(42, 21, 5),
    "init_qpP": Scale(45, 24, 8),
    "init_qpB": Scale(47, 26, 10),
}
_AV1_NVENC_QUALITY = {
    "init_qpI": Scale(195, 79, 11),
    "init_qpP": Scale(220, 104, 36),
    "init_qpB": Scale(237, 121, 53),
}


@dataclass(frozen=True, slots=True)
class EncoderInfo:
    """One encoder.

    Args:
        name: FFmpeg's name of it, or of the library that does the same for Pillow.
        use: what it is for, a few words.
        pixel_format: what its frames are given in.
        options: FFmpeg's options, or Pillow's where frames are RGB.
        quality: those of them that a quality sets, by scales; empty where there is none to choose.
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
    quality: Mapping[str, Scale] = field(default_factory=dict)
    planar: bool = False
    on_nvidia: bool = False
    min_side: int = 2
    max_fps: int | None = None
    tag: str | None = None
    num_threads: int | None = None

    def settings(self, quality: int | None = None) -> dict[str, str]:
        """Returns its options at a quality of 1 … 100, or at its own for None."""
        if quality is None:
            return dict(self.options)
        return {**self.options, **{name: scale.at(quality) for name, scale in self.quality.items()}}


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


def _nvenc(
    name: str,
    codec: str,
    options: Mapping[str, str],
    quality: Mapping[str, Scale],
    tag: str | None = None,
) -> EncoderInfo:
    return EncoderInfo(
        name,
        f"{codec} by NVENC, NVIDIA's hardware",
        options=options,
        quality=quality,
        on_nvidia=True,
        min_side=NVENC_MIN_SIDE,
        tag=tag,
    )


# Apple's players know HEVC by this tag alone.
_HEVC_TAG = "hvc1"

ENCODERS: dict[str, EncoderInfo] = {
    info.name: info
    for info in (
        EncoderInfo(
            "libx264",
            "H.264, which everything plays",
            options=_X264,
            quality=_X264_QUALITY,
            num_threads=NUM_THREADS,
        ),
        EncoderInfo(
            "libx265",
            "HEVC, for smaller files",
            options=_X265,
            quality=_X265_QUALITY,
            planar=True,
            min_side=16,
            tag=_HEVC_TAG,
        ),
        EncoderInfo(
            "libsvtav1",
            "AV1, for the smallest files, AVIF among them",
            options=_SVT_AV1,
            quality=_AV1_QUALITY,
            planar=True,
            min_side=4,
            max_fps=240,
        ),
        EncoderInfo(
            "libvpx-vp9",
            "VP9, for WebM",
            options=_VP9,
            quality=_VP9_QUALITY,
            planar=True,
            num_threads=NUM_THREADS,
        ),
        _nvenc("h264_nvenc", "H.264", _H264_NVENC, _H264_NVENC_QUALITY),
        _nvenc("hevc_nvenc", "HEVC", _HEVC_NVENC, _HEVC_NVENC_QUALITY, _HEVC_TAG),
        _nvenc("av1_nvenc", "AV1", _AV1_NVENC, _AV1_NVENC_QUALITY),
        EncoderInfo(
            "libwebp",
            "WebP, a picture at a time",
            PixelFormat.RGB24,
            options=_WEBP,
            quality=_WEBP_QUALITY,
        ),
        EncoderInfo("gif", "GIF, after a lossless first pass by ffv1", PixelFormat.RGB24),
        EncoderInfo("png", "PNG, a picture a frame, lossless", PixelFormat.RGB24, options=_PNG),
    )
}
