"""What a render says of itself: a bar on a real terminal, JSON lines elsewhere."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

COMMAND = [sys.executable, "-m", "giffusion.server", "render", "--prompts", "0: a dog\n5: a lion"]
OPTIONS = ["--steps", "2", "--runtime", "onnxruntime", "--size", "64x96"]


def test_a_terminal_shows_frames_rate_and_time_left(tmp_path: Path) -> None:
    reader, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    output = str(tmp_path / "out.gif")
    process = subprocess.Popen(
        [*COMMAND, "-o", output, *OPTIONS], stdout=terminal, stderr=terminal, stdin=terminal
    )
    os.close(terminal)
    shown = b""
    while True:
        try:
            chunk = os.read(reader, 4096)
        except OSError:  # how Linux says that the last writer has closed a terminal
            break
        if not chunk:
            break
        shown += chunk
    os.close(reader)
    assert process.wait() == 0
    text = shown.decode()
    assert "out.gif:   0%" in text
    assert "6/6 [" in text
    assert "frames/s]" in text
    assert "colours: 100%" in text
    assert text.splitlines()[-1].startswith(f"{output}: 6 frames of 64x96 in ")


def test_a_pipe_gets_no_bar(tmp_path: Path) -> None:
    command = [*COMMAND, "-o", str(tmp_path / "out.mp4"), *OPTIONS]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1


def test_json_lines_tell_the_whole_story(tmp_path: Path) -> None:
    command = [*COMMAND, "-o", str(tmp_path / "out.mp4"), *OPTIONS, "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    progress = [line for line in lines if line["event"] == "progress"]
    counts = [line["done"] for line in progress]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 6)
    assert progress[0]["left_s"] is None
    assert progress[-1]["left_s"] == 0
    assert lines[-1]["event"] == "done"
    assert lines[-1]["numerics"]["precision"] == "fp32"


def test_json_lines_tell_of_a_failure(tmp_path: Path) -> None:
    command = [*COMMAND, "-o", str(tmp_path / "out.mp4"), *OPTIONS, "--json", "--batch", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["event"] == "error"
    assert done.stderr == f"giffusion: {last['text']}\n"
