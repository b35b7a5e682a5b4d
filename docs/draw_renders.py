"""`python -m docs.draw_renders`: strips of renders with motion, from a film, by a settings file.

Rendered by the bundled model; written beside this file.
"""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from giffusion.engine import RenderSettings, load_model, render
from giffusion.models import find_model
from giffusion.server.cli import main as main_of_cli

HERE = Path(__file__).parent
NUM_SHOWN = 8
_SIDE = 128
_GAP = 2
Pixels = NDArray[np.uint8]


def main() -> None:
    """Draws all strips."""
    with tempfile.TemporaryDirectory() as folder:
        draw_motion(Path(folder))
        draw_film(Path(folder))
        draw_settings(Path(folder))


def draw_motion(folder: Path) -> None:
    """A walk, the same one zoomed and turned as it goes, and an apple that moves to the right."""
    walk = "0: a house on a light blue background\n28: a castle on a light blue background"
    turning = {"zoom": 1.015, "angle": -2, "strength": 0.35, "seed": "t"}
    apple = "0: a red apple on a white background"
    away = {"translate_x": 6, "padding": "reflection", "strength": 0.3, "seed": "t"}
    rows = [
        made(folder, walk),
        made(folder, walk, **turning),
        made(folder, apple, num_frames=29, **away),
    ]
    save(rows, HERE / "motion_render.png")


def draw_film(folder: Path) -> None:
    """A film of a ball, and what two strengths make of it."""
    film = folder / "ball.mp4"
    write_film(film, 29, ball)
    rows = [
        made(folder, "0: an orange", video=str(film), num_frames=29, strength=strength)
        for strength in (0.3, 0.6)
    ]
    save([[ball(frame) for frame in range(29)], *rows], HERE / "video_render.png")


def draw_settings(folder: Path) -> None:
    """What `giffusion.toml` renders, and the frames that Comet's archive holds of it."""
    output, runs = folder / "walk.mp4", folder / "runs"
    words = ["render", "--config", str(HERE / "giffusion.toml"), "-o", str(output)]
    assert main_of_cli([*words, "--comet", f"offline:{runs}"]) == 0
    with av.open(str(output)) as film:
        decoded = film.decode(video=0)
        walk = [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in decoded]
    save([walk], HERE / "settings.png")
    save([logged_frames(*runs.glob("*.zip"))], HERE / "comet.png")


def logged_frames(archive: Path) -> list[Pixels]:
    """Reads the frames in an archive of Comet's, by their steps."""
    with zipfile.ZipFile(archive) as opened:
        messages = [json.loads(line) for line in opened.read("messages.json").splitlines()]
        payloads = (message["payload"] for message in messages)
        frames = [p for p in payloads if p.get("upload_type") == "visualization"]
        frames.sort(key=lambda frame: frame["additional_params"]["step"])
        read = (Image.open(io.BytesIO(opened.read(frame["file_path"]))) for frame in frames)
        return [np.asarray(picture.convert("RGB")) for picture in read]


def made(folder: Path, text: str, name: str = "mini", **settings: Any) -> list[Pixels]:
    """Renders frames by a bundled model."""
    target = folder / "frames" / "%05d.png"
    model = load_model(find_model(name))
    render(
        text,
        target,
        model=model,
        settings=RenderSettings(fps=Fraction(24), **settings),
        force=True,
    )
    return shown(target.parent)


def shown(folder: Path) -> list[Pixels]:
    """Reads the pictures of a sequence."""
    return [np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))]


def ball(frame: int) -> Pixels:
    """An orange ball that bounces along."""
    picture = Image.new("RGB", (_SIDE, _SIDE), (250, 250, 250))
    x, y = 24 + frame * 80 / 28, 96 - 60 * abs(np.sin(frame / 28 * 2 * np.pi))
    ImageDraw.Draw(picture).ellipse((x - 22, y - 22, x + 22, y + 22), (245, 140, 30))
    return np.asarray(picture)


def write_film(path: Path, num_frames: int, draw: Callable[[int], Pixels]) -> None:
    """Writes a film of drawn frames."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=24)
        stream.width = stream.height = _SIDE
        for frame in range(num_frames):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(draw(frame), "rgb24")))
        file.mux(stream.encode())


def save(rows: Sequence[Sequence[Pixels]], path: Path) -> None:
    """Writes some frames of each row as one picture."""
    step = _SIDE + _GAP
    sheet = Image.new("RGB", (NUM_SHOWN * step - _GAP, len(rows) * step - _GAP), "white")
    for row, pictures in enumerate(rows):
        for column, at in enumerate(np.linspace(0, len(pictures) - 1, NUM_SHOWN).round()):
            picture = Image.fromarray(pictures[int(at)]).resize((_SIDE, _SIDE))
            sheet.paste(picture, (column * step, row * step))
    sheet.save(path, optimize=True)


if __name__ == "__main__":
    main()
