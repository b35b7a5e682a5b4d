"""Pickles: refused wherever a checkpoint is read, and converted to safetensors on request.

`is_pickle` and `refuse_pickle` are called by the readers, `convert` by `giffusion convert`. The
invariant: no pickle is opened in this process. `worker.py` reads it in a process of its own,
and of what that one answers only a safetensors header and a bounded report are taken.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shlex
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from giffusion.engine.encode.output import OutputFile, check_place
from giffusion.engine.errors import DiskFullError, ModelError, OutputError, one_line, reason_of
from giffusion.export.checkpoint.tensors import stored_tensors

PICKLE_SUFFIXES = (".ckpt", ".bin", ".pt", ".pth", ".pkl")
_WORKER = "giffusion.export.pickles.worker"
_PROTOCOLS = range(2, 6)
_MAX_REPORT = 1 << 22
_MAX_NOTE = 300
_GIB = 1 << 30
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Conversion:
    """What `convert` made of a pickle.

    Args:
        num_tensors: tensors in the new file.
        left_out: names of what is not in it: whole numbers and what is no tensor.
        cast: names of tensors that were float64 and are float32 now.
        held: what the process that read the pickle was kept from; see `sandbox.confine`.
    """

    num_tensors: int
    left_out: tuple[str, ...]
    cast: tuple[str, ...]
    held: tuple[str, ...]


def is_pickle(path: Path) -> bool:
    """Says whether a file is a pickle, or a zip file around one as torch writes it.

    What the file holds decides; its suffix does where that says nothing.
    """
    by_suffix = path.suffix.lower() in PICKLE_SUFFIXES
    try:
        # A pipe would keep whoever opens it waiting.
        if not path.is_file():
            return by_suffix
        head, size = _head(path), path.stat().st_size
    except OSError:
        return by_suffix
    if _begins_safetensors(head, size):
        return False
    return _holds_pickle(path, head) or by_suffix


def refuse_pickle(path: Path) -> NoReturn:
    """Refuses to read a pickle, and says what to do with it.

    Raises:
        ModelError: always.
    """
    name = f"{path.stem}-converted" if path.suffix == ".safetensors" else path.stem
    output = path.with_name(f"{name}.safetensors")
    raise ModelError(
        f"{path} is a pickle, which can run code when it is read: convert it with `giffusion "
        f"convert {shlex.quote(str(path))} -o {shlex.quote(str(output))}` and export that"
    )


def convert(source: Path, output: Path) -> Conversion:
    """Writes the weights of a pickle as a safetensors file.

    The pickle is read by torch's restricted unpickler in a process without an environment, and as
    far as the system has the means without a network, without leave to open files for writing or
    to start programs, and with bounded memory, time and output.

    Args:
        source: a file that `torch.save` wrote: tensors by name, by themselves or under
            `state_dict`, or an embedding's.
        output: the new file, which must not exist; its name ends in `.safetensors`.

    Returns:
        What was written. Half-precision and float32 tensors are kept as they are, tensors that
        shared memory are written each.

    Raises:
        ModelError: the source is missing, is no pickle, is damaged, holds no weights, asks for
            anything but tensors, or needs more than it is allowed.
        OutputError: the output's place is taken or cannot be written.
        DiskFullError: no space is left there.
    """
    _check_source(source)
    _check_output(output)
    file = OutputFile(output, force=False)
    try:
        report = _run_worker(source, file.temp)
        conversion = _checked(source, file.temp, report)
        file.publish()
        return conversion
    except OSError as error:
        raise _cannot_write(output, error.errno, str(error.strerror)) from None
    finally:
        file.discard()


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(9)


def _begins_safetensors(head: bytes, size: int) -> bool:
    # A header of 640 bytes begins as a pickle does.
    return len(head) == 9 and head[8:] == b"{" and struct.unpack("<Q", head[:8])[0] <= size


def _holds_pickle(path: Path, head: bytes) -> bool:
    if len(head) >= 2 and head[0] == 0x80 and head[1] in _PROTOCOLS:
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.rpartition("/")[2] == "data.pkl" for name in archive.namelist())
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError):
        return False


def _check_source(source: Path) -> None:
    try:
        facts = source.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise ModelError(f"{source} is not a regular file: expected one such as model.ckpt")
        head = _head(source)
    except (OSError, ValueError) as error:
        raise ModelError(f"{source} cannot be read: {reason_of(error)}") from None
    if _begins_safetensors(head, facts.st_size):
        raise ModelError(f"{source} is a safetensors file: export it as it is")
    if _holds_pickle(source, head):
        return
    if head.startswith(b"PK"):
        raise ModelError(f"{source} is a zip file that is cut off or is no checkpoint: get it anew")
    raise ModelError(f"{source} is not a pickle: expected a file that torch.save wrote")


def _check_output(output: Path) -> None:
    if output.suffix != ".safetensors":
        raise OutputError(f"{output}: expected a name that ends in .safetensors")
    if output.is_symlink() or output.exists():
        raise OutputError(f"{output} exists: give another name")
    check_place(output, force=False)


def _limits(size: int) -> dict[str, int]:
    return {
        # Importing torch takes most of a GiB; a file that cannot be mapped is read as well.
        "RLIMIT_AS": 8 * _GIB + 4 * size,
        "RLIMIT_CPU": 120 + size // (10 << 20),
        # Tensors that share memory are written each.
        "RLIMIT_FSIZE": 2 * size + (64 << 20),
        "RLIMIT_CORE": 0,
        "RLIMIT_NPROC": 0,
        "RLIMIT_NOFILE": 256,
    }


def _run_worker(source: Path, temp: Path) -> dict[str, Any]:
    """Runs the worker with `temp` as its standard output; returns its report.

    Raises:
        ModelError: it ended without one, or reported an error.
    """
    limits = _limits(source.stat().st_size)
    order = json.dumps({"source": str(source.resolve()), "limits": limits})
    try:
        with temp.open("r+b") as stream, tempfile.TemporaryFile() as said:
            ended = subprocess.run(
                [sys.executable, "-I", "-B", "-m", _WORKER, order],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=said,
                cwd="/",
                # A thread beside the first would stand outside the sandbox.
                env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
                timeout=10 * limits["RLIMIT_CPU"],
                check=False,
            )
            said.seek(max(0, said.seek(0, os.SEEK_END) - _MAX_REPORT))
            report = _parse_report(said.read())
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"{source} was not converted in {error.timeout:.0f} s: given up") from None
    if ended.returncode < 0:
        raise ModelError(_death(source, -ended.returncode))
    if report.get("errno") in _FULL:
        raise _cannot_write(temp.parent, errno.ENOSPC, "no space left there")
    if "error" in report or ended.returncode:
        reason = one_line(report.get("error", "its reader gave no reason"))[:_MAX_NOTE]
        raise ModelError(f"{source} was not converted: {reason}")
    return report


def _cannot_write(output: Path, number: int | None, reason: str) -> DiskFullError | OutputError:
    kind = DiskFullError if number in _FULL else OutputError
    return kind(f"{output} cannot be written: {reason}")


def _death(source: Path, signum: int) -> str:
    hints = {
        int(signal.SIGKILL): "perhaps memory or time was used up: close other programs",
        int(signal.SIGXCPU): "it took more time than its size explains: do not trust it",
    }
    name = signal.strsignal(signum) or "unknown"
    return (
        f"{source} was not converted: the process that read it was ended by signal {signum} "
        f"({name}): {hints.get(signum, 'the file may be damaged: get it anew')}"
    )


def _parse_report(text: bytes) -> dict[str, Any]:
    lines = text.splitlines() or [b"nothing"]
    with contextlib.suppress(ValueError, RecursionError):
        report = json.loads(lines[-1])
        if isinstance(report, dict):
            return report
    return {"error": f"its reader said: {lines[-1].decode(errors='replace')}"}


def _checked(source: Path, temp: Path, report: dict[str, Any]) -> Conversion:
    """Compares a report with the file that it speaks of."""
    try:
        num_tensors = len(stored_tensors(temp))
    except ModelError:
        num_tensors = 0
    if num_tensors == 0 or num_tensors != report.get("num_tensors"):
        raise ModelError(
            f"{source} was not converted: its reader wrote something else than it said"
        )
    return Conversion(
        num_tensors, *(_names(report.get(key)) for key in ("left_out", "cast", "held"))
    )


def _names(value: object) -> tuple[str, ...]:
    items: Sequence[object] = value if isinstance(value, list) else ()
    return tuple(one_line(item)[:_MAX_NOTE] for item in items)
