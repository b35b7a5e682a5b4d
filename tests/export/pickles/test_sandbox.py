"""What a process can still do after it has given up the rest."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from giffusion.export.pickles.sandbox import FILES, LIMITS, NETWORK, PRIVILEGES

PROBE = """
import json, os, socket, sys
from pathlib import Path
from giffusion.export.pickles.sandbox import confine

def outcome(action):
    try:
        action()
    except BaseException as error:
        return type(error).__name__
    return "done"

folder, port = Path(sys.argv[1]), int(sys.argv[2])
limits = {"RLIMIT_CORE": 0, "RLIMIT_FSIZE": 1000, "RLIMIT_AS": 1 << 30}
actions = {
    "read": lambda: (folder / "allowed").read_text(),
    "spy": lambda: (folder / "secret").read_text(),
    "list": lambda: os.listdir(folder),
    "write": lambda: (folder / "new").write_text("x"),
    "change": lambda: (folder / "allowed").write_text("x"),
    "remove": lambda: (folder / "allowed").unlink(),
    "run": lambda: os.execv("/bin/sh", ["sh", "-c", "exit 3"]),
    "connect": lambda: socket.create_connection(("127.0.0.1", port), 2),
    "signal": lambda: os.kill(os.getppid(), 0),
    "allocate": lambda: bytearray(2 << 30),
    "print much": lambda: os.write(opened, bytes(2000)) and os.write(opened, bytes(2000)),
}
opened = os.open(folder / "open", os.O_RDWR)
held = confine([folder / "allowed"], limits)
print(json.dumps([held, {name: outcome(action) for name, action in actions.items()}]))
"""


def probe(folder: Path) -> tuple[list[str], dict[str, str]]:
    """Tries in a sandbox what a pickle's code could try."""
    for name in ("allowed", "secret", "open"):
        (folder / name).write_text(name)
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = subprocess.run(
            [sys.executable, "-I", "-c", PROBE, str(folder), str(server.getsockname()[1])],
            capture_output=True,
            check=True,
            timeout=60,
        )
    held, outcomes = json.loads(ended.stdout)
    return held, outcomes


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has these walls")
def test_the_walls_hold(tmp_path: Path) -> None:
    held, outcomes = probe(tmp_path)
    assert {LIMITS, PRIVILEGES} <= {*held} <= {FILES, LIMITS, NETWORK, PRIVILEGES}
    assert outcomes["read"] == "done"
    assert outcomes["allocate"] == "MemoryError"
    assert outcomes["print much"] == "OSError"
    if NETWORK in held:
        assert outcomes["connect"] in ("OSError", "PermissionError")
    if FILES in held:
        tried = ("spy", "list", "write", "change", "remove", "run")
        assert {outcomes[name] for name in tried} == {"PermissionError"}
        assert sorted(path.name for path in tmp_path.iterdir()) == ["allowed", "open", "secret"]
        assert (tmp_path / "allowed").read_text() == "allowed"
