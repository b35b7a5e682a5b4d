"""The one way in which a user's films and sounds are opened: PyAV with everything else shut.

Called by the readers of this package and of `engine/audio`; PyAV is loaded when a file is opened.
FFmpeg also reads playlists, scripts and patterns that name other files; a crafted `film.mp4` may be
one. The invariant: one regular file is read and nothing that it names, in a format of the list, and
finding out what is in it takes bounded time and memory.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, NoReturn, overload

from giffusion.engine.errors import InputError, one_line, reason_of
from giffusion.engine.media.files import check_file

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.stream import Stream
    from av.video.stream import VideoStream

Kind = Literal["video", "audio"]

MAX_STREAMS = 256
"""A disc's titles with all languages and fonts have some dozens."""
MAX_FILM_PIXELS = 8192 * 4320
"""Those of a frame of 8K film; larger ones are taken for decompression bombs."""
_PROBE_BYTES = 16 << 20
_PROBE_S = 10
_OPEN_TIMEOUT_S = 60
_BUFFER_BYTES = 1 << 18
_EXPECTED = {"video": "a film", "audio": "a sound or a film with sound"}
# FFmpeg's demuxers that read one file, by one of their names.
# Bare streams of video are not among them: they say no times.
_FILMS = (
    *("mov", "matroska", "avi", "mpegts", "mpeg", "flv", "asf", "mxf", "gif", "apng"),
    *("ivf", "nut", "yuv4mpegpipe", "dv"),
)
_SOUNDS = (
    *("wav", "w64", "aiff", "caf", "au", "mp3", "flac", "ogg", "aac", "ac3", "eac3", "dts"),
    *("wv", "ape", "tta", "tak", "amr", "mpc", "mpc8", "dsf", "shn", "truehd", "mlp"),
)
FORMATS = (*_FILMS, *_SOUNDS)
"""Names of FFmpeg's formats that are read; `docs/video.md` lists them."""


@contextmanager
def opened_media(path: Path, kind: Kind) -> Iterator[InputContainer]:
    """Opens a film or a sound for reading, and closes it.

    Args:
        path: the file.
        kind: what will be read from it; `best_stream` then finds it.

    Yields:
        PyAV's container, with at least one stream of the kind.

    Raises:
        InputError: it is missing, is no regular file, is empty, is of no format that is read, has
            no stream of the kind, or is damaged where it says what is in it.
    """
    import av

    check_file(path, _EXPECTED[kind])
    with _stream(path) as stream:
        if not stream.read(1):
            raise InputError(f"{path} is empty: expected {_EXPECTED[kind]}")
        stream.seek(0)
        try:
            container = av.open(
                _Nameless(stream),
                "r",
                options=_options(),
                metadata_errors="replace",
                buffer_size=_BUFFER_BYTES,
                timeout=(_OPEN_TIMEOUT_S, None),
                io_open=_refuse,
            )
        except Exception as error:  # PyAV raises OSError, ValueError and its own kinds alike
            raise InputError(_not_media(path, kind, error)) from error
        with container:
            if len(container.streams) > MAX_STREAMS:
                raise InputError(f"{path} has more than {MAX_STREAMS} streams: convert it to MP4")
            best_stream(container, kind, path)
            yield container


@overload
def best_stream(container: InputContainer, kind: Literal["video"], path: Path) -> VideoStream: ...
@overload
def best_stream(container: InputContainer, kind: Literal["audio"], path: Path) -> AudioStream: ...
@overload
def best_stream(container: InputContainer, kind: Kind, path: Path) -> VideoStream | AudioStream: ...
def best_stream(container: InputContainer, kind: Kind, path: Path) -> VideoStream | AudioStream:
    """Returns the stream of a kind that FFmpeg's players would choose; never a cover.

    Raises:
        InputError: there is none, or none that can be decoded.
    """
    chosen = chosen_stream(container, kind)
    if chosen is None:
        found = {"a cover" if _is_cover(s) else s.type for s in container.streams}
        raise InputError(
            f"{path} has no {kind}, only {', '.join(sorted(found)) or 'nothing'}: expected "
            f"{_EXPECTED[kind]}"
        )
    if chosen.codec_context is None:
        raise InputError(f"{path} has {kind} in a codec that cannot be decoded here: convert it")
    return chosen


def chosen_stream(container: InputContainer, kind: Kind) -> VideoStream | AudioStream | None:
    """Returns the stream of `best_stream`, decodable or not, or None where there is none."""
    streams: list[VideoStream | AudioStream] = [
        s for s in getattr(container.streams, kind) if not _is_cover(s)
    ]
    best = container.streams.best(kind)
    return next((s for s in streams if s is best), streams[0] if streams else None)


def _is_cover(stream: Stream) -> bool:
    from av.stream import Disposition

    return bool(stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails))


class _Nameless:
    """A file that PyAV reads without being told a name: a name would sway what it is taken for."""

    def __init__(self, stream: BinaryIO) -> None:
        self.read, self.seek, self.tell = stream.read, stream.seek, stream.tell


def _stream(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def _options() -> dict[str, str]:
    return {
        "format_whitelist": ",".join(FORMATS),
        # No way to open anything is on the list.
        "protocol_whitelist": "none",
        "probesize": str(_PROBE_BYTES),
        "analyzeduration": str(_PROBE_S * 1_000_000),
        "max_pixels": str(MAX_FILM_PIXELS),
        # One more, since some of FFmpeg's demuxers leave out in silence what is above.
        "max_streams": str(MAX_STREAMS + 1),
    }


def _refuse(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    raise PermissionError(f"it names another file, {one_line(url)}")


def _not_media(path: Path, kind: Kind, error: Exception) -> str:
    """Returns what to say of a file that FFmpeg does not open."""
    code = getattr(error, "errno", None)
    if code == errno.ENOMEM:
        return f"{path} has more than {MAX_STREAMS} streams, or one too large: convert it to MP4"
    if code == errno.EINVAL:
        return f"{path} is in no format that is read: expected {_EXPECTED[kind]}, such as an MP4"
    if code == errno.EIO:  # what FFmpeg says where a file ends too early
        return f"{path} cannot be read as {_EXPECTED[kind]}: it is cut off near its beginning"
    if isinstance(error, EOFError):
        return f"{path} cannot be read as {_EXPECTED[kind]}: it ends before its first frame"
    reason = reason_of(error)
    return f"{path} cannot be read as {_EXPECTED[kind]}: {reason}"
