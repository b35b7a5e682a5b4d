"""What is opened, what is refused, and that nothing besides the one file is read."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from giffusion.engine.errors import InputError
from giffusion.engine.media.opening import FORMATS, MAX_STREAMS, Kind, best_stream, opened_media
from tests.engine.media.films import numbered_film
from tests.pages import table_rows


def refusal(path: Path, kind: Kind = "video") -> str:
    with pytest.raises(InputError) as caught, opened_media(path, kind):
        pass
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def sound_file(path: Path, num_streams: int = 1, codec: str = "pcm_s16le") -> Path:
    with av.open(path, "w") as file:
        streams = [file.add_stream(codec, rate=16000, layout="mono") for _ in range(num_streams)]
        for stream in streams:
            assert isinstance(stream, av.AudioStream)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 160), np.int16), "s16", "mono")
            frame.rate = 16000
            file.mux(stream.encode(frame))
            file.mux(stream.encode())
    return path


def test_what_is_no_file(tmp_path: Path) -> None:
    missing = tmp_path / "none.mp4"
    assert refusal(missing) == f"{missing} cannot be read: No such file or directory"
    assert refusal(tmp_path) == f"{tmp_path} is no file: expected a film"
    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)
    assert refusal(pipe) == f"{pipe} is no file: expected a film"
    assert refusal(pipe, "audio") == f"{pipe} is no file: expected a sound or a film with sound"
    assert refusal(Path("/dev/zero")) == "/dev/zero is no file: expected a film"
    assert refusal(Path("a\0.mp4")) == "'a\\x00.mp4' is no path: embedded null byte"
    empty = tmp_path / "empty.mp4"
    empty.touch()
    assert refusal(empty) == f"{empty} is empty: expected a film"


def test_what_is_no_media(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_text("no film\n" * 1000)
    assert refusal(path).startswith(f"{path} cannot be read as a film: ")
    path.write_bytes(np.random.default_rng(1).bytes(100_000))
    assert str(path) in refusal(path)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    picture = tmp_path / "a.jpg"
    assert (
        refusal(picture)
        == f"{picture} is in no format that is read: expected a film, such as an MP4"
    )


def test_a_bare_stream_says_no_times(tmp_path: Path) -> None:
    path = numbered_film(tmp_path / "a.h264", 3, container="h264")
    assert refusal(path) == f"{path} is in no format that is read: expected a film, such as an MP4"


@pytest.mark.parametrize(
    "script",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{0}\n#EXT-X-ENDLIST\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{0}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{0}'\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=a\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
        "[playlist]\nFile1={0}\nNumberOfEntries=1\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
        "<Period><BaseURL>{0}</BaseURL></Period></MPD>",
        "<ASX><ENTRY><REF HREF='{0}'/></ENTRY></ASX>",
    ],
)
@pytest.mark.parametrize("name", ["a.mp4", "a.m3u8", "a.ts", "a%d.png"])
def test_a_script_opens_nothing(tmp_path: Path, script: str, name: str) -> None:
    """FFmpeg follows these where it is let; what they name is a film that can be read."""
    film = numbered_film(tmp_path / "film.ts", 3)
    path = tmp_path / name
    path.write_text(script.format(film))
    for kind in ("video", "audio"):
        assert str(film) not in refusal(path, kind)


def test_a_name_is_a_path_and_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbered_film(tmp_path / "a.mp4", 3)
    monkeypatch.chdir(tmp_path)
    for name in ("file:a.mp4", "concat:a.mp4|a.mp4", "subfile,,start,0,end,0,,:a.mp4"):
        assert refusal(Path(name)) == f"{name} cannot be read: No such file or directory"
        (tmp_path / "a.mp4").rename(tmp_path / name)
        with opened_media(Path(name), "video") as container:
            assert container.format.name.startswith("mov")
        (tmp_path / name).rename(tmp_path / "a.mp4")


def test_a_track_that_lies_in_another_file_is_not_followed(tmp_path: Path) -> None:
    """QuickTime's data references, which FFmpeg follows when it is told to."""
    path = numbered_film(tmp_path / "a.mov", 3)
    content = path.read_bytes()
    assert content.count(b"url \0\0\0\1") == 1
    path.write_bytes(content.replace(b"url \0\0\0\1", b"alis\0\0\0\0"))
    with opened_media(path, "video") as container:
        assert len(container.streams.video) == 1


def test_a_film_without_sound_and_a_sound_without_film(tmp_path: Path) -> None:
    film = numbered_film(tmp_path / "a.mp4", 3)
    assert refusal(film, "audio") == (
        f"{film} has no audio, only video: expected a sound or a film with sound"
    )
    sound = sound_file(tmp_path / "a.wav")
    assert refusal(sound) == f"{sound} has no video, only audio: expected a film"
    with opened_media(sound, "audio") as container:
        assert best_stream(container, "audio", sound).type == "audio"


def test_a_cover_is_no_film(tmp_path: Path) -> None:
    """The picture block of FLAC's specification, RFC 9639, 8.8, before all others but the first."""
    path = sound_file(tmp_path / "a.flac", codec="flac")
    Image.new("RGB", (16, 16), "red").save(tmp_path / "cover.png")
    cover = (tmp_path / "cover.png").read_bytes()
    mime = b"image/png"
    block = b"".join(
        [
            struct.pack(">II", 3, len(mime)),
            mime,
            struct.pack(">IIIIII", 0, 16, 16, 24, 0, len(cover)),
            cover,
        ]
    )
    content, end = path.read_bytes(), 4 + 4 + 34
    header = bytes([6]) + len(block).to_bytes(3, "big")
    path.write_bytes(content[:end] + header + block + content[end:])
    with opened_media(path, "audio") as container:
        assert len(container.streams.video) == 1
    assert refusal(path) == f"{path} has no video, only a cover, audio: expected a film"


def test_many_streams(tmp_path: Path) -> None:
    path = sound_file(tmp_path / "a.mkv", MAX_STREAMS)
    with opened_media(path, "audio") as container:
        assert len(container.streams) == MAX_STREAMS
    path = sound_file(tmp_path / "b.mkv", MAX_STREAMS + 1)
    assert refusal(path, "audio") == (
        f"{path} has more than {MAX_STREAMS} streams: convert it to MP4"
    )


def test_the_animation_of_an_avif_is_read_and_not_its_still(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (16, 16), (grey, grey, grey)) for grey in (0, 128, 255)]
    path = tmp_path / "a.avif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
    with opened_media(path, "video") as container:
        stream = best_stream(container, "video", path)
        assert (stream.index, stream.frames) == (1, 3)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.ts"])
def test_what_is_cut_off_at_its_beginning(tmp_path: Path, name: str) -> None:
    path = numbered_film(tmp_path / name, 10)
    content = path.read_bytes()
    for length in (1, 8, 20, 60, 150):
        path.write_bytes(content[:length])
        assert str(path) in refusal(path)


def test_the_page_lists_the_formats() -> None:
    rows = [row for row in table_rows("video.md") if row[0] in ("films", "sounds")]
    assert re.findall("`([^`]+)`", "".join(row[1] for row in rows)) == list(FORMATS)
