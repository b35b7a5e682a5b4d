"""Draws `docs/audio.png`, the picture on the page of sound: `python -m docs.draw_audio`."""

from __future__ import annotations

import tempfile
from fractions import Fraction
from pathlib import Path

from PIL import Image

from benchmarks.song import write_song
from giffusion.engine.audio.analysis import analyse
from giffusion.engine.audio.key_frames import marked_frames
from giffusion.engine.audio.options import AudioOptions
from giffusion.engine.audio.plot import write_plot

FPS = Fraction(24)


def main() -> None:
    """Draws what `giffusion audio` does, for beats, the percussive component and `--smooth 0.2`."""
    path = Path(__file__).with_name("audio.png")
    with tempfile.TemporaryDirectory() as folder:
        song = write_song(Path(folder) / "song.wav", 8, bpm=100)
        heard = analyse(song, FPS, AudioOptions(component="percussive", smooth=0.2))
    marks = marked_frames(heard.beats(), FPS, len(heard.curve))
    write_plot(path, heard, marks, FPS, "song.wav: percussive, beats", force=True)
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(64, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


if __name__ == "__main__":
    main()
