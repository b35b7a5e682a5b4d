"""A process that gives up what it does not need, before it reads a file that nobody vouches for.

Called by `worker.py` before it opens the pickle. The invariant: what was given up cannot be
taken back by anything that runs in the process later. Every wall stands alone: where a system has
no Landlock or no user namespaces, the others still hold, and `confine` says which do.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import struct
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

PRIVILEGES, NETWORK, FILES, LIMITS = "no new privileges", "no network", "no file access", "limits"

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CLONE_NEWUSER, _CLONE_NEWNET, _CLONE_NEWIPC = 0x10000000, 0x40000000, 0x08000000
# The same on all architectures that Python's releases are made for.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_READ_FILE, _READ_FOLDER = 1 << 2, 1 << 3
_PATH_BENEATH = 1
# By the version of Landlock: https://docs.kernel.org/userspace-api/landlock.html
_NUM_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
_MAX_FILE_RIGHTS, _NETWORK_VERSION, _SCOPE_VERSION = 16, 4, 6
# Libraries that are loaded at first use.
_SYSTEM = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/etc/ld.so.cache")


def confine(readable: Iterable[Path], limits: Mapping[str, int]) -> list[str]:
    """Gives up the network, the file system, new privileges and unlimited use of the machine.

    Nothing can be opened for writing or be executed any more, and only `readable`, Python's own
    folders and the system's libraries can be read; what is open stays so. Called while there is one
    thread alone: others would keep their leave, and then it is not said to hold.

    Args:
        readable: files and folders that may still be read.
        limits: hard limits by what the `resource` module calls them, such as `RLIMIT_CPU`.

    Returns:
        Those of `PRIVILEGES`, `NETWORK`, `FILES` and `LIMITS` that hold from now on.
    """
    held = []
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        # Its output is of no use to anyone when whoever asked for it is gone.
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
            held.append(PRIVILEGES)
        if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET | _CLONE_NEWIPC) == 0:
            held.append(NETWORK)
        alone = len(os.listdir("/proc/self/task")) == 1
        if _close_files(libc, [*readable, *_own_folders()]) and alone:
            held.append(FILES)
    if _set_limits(limits):
        held.append(LIMITS)
    return held


def _own_folders() -> list[Path]:
    return [Path(place) for place in {sys.prefix, sys.base_prefix, *sys.path, *_SYSTEM}]


def _close_files(libc: ctypes.CDLL, readable: Iterable[Path]) -> bool:
    """Applies a Landlock ruleset; returns whether it holds."""
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return False
    # What a version does not know is zero, and may then be there.
    attributes = struct.pack(
        "=QQQ",
        (1 << _NUM_FILE_RIGHTS.get(version, _MAX_FILE_RIGHTS)) - 1,
        0b11 if version >= _NETWORK_VERSION else 0,
        0b11 if version >= _SCOPE_VERSION else 0,
    )
    ruleset = libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    if ruleset < 0:
        return False
    try:
        for path in readable:
            _allow_reading(libc, ruleset, path)
        return bool(libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def _allow_reading(libc: ctypes.CDLL, ruleset: int, path: Path) -> None:
    # What is missing, as python311.zip mostly is, needs no leave.
    with contextlib.suppress(OSError):
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            rights = _READ_FILE | _READ_FOLDER if path.is_dir() else _READ_FILE
            libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, opened), 0)
        finally:
            os.close(opened)


def _set_limits(limits: Mapping[str, int]) -> bool:
    """Sets hard limits; returns whether all of them hold."""
    held = True
    for name, value in limits.items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(kind, (value, value))
        except (OSError, ValueError):
            # macOS has no limit on address space; the others still count.
            held = False
    return held
