"""Memory that others read without a copy: DLPack capsules made with ctypes alone.

A device graph hands frames out as `DlpackFrame`; NumPy, PyAV, PyTorch and CuPy read them. The
invariant: the memory's owner lives until the last consumer has given its capsule's tensor back,
whether it took the tensor, renamed the capsule and called the deleter, or let the capsule go
unread.

https://dmlc.github.io/dlpack/latest/c_api.html, the structures of version 0.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from math import prod
from typing import Any

CPU = (1, 0)
"""DLPack's type and number of host memory."""
_NAME = b"dltensor"
_UINT = 1


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("dtype_code", ctypes.c_uint8),
        ("dtype_bits", ctypes.c_uint8),
        ("dtype_lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _ManagedTensor(ctypes.Structure):
    _fields_ = (
        ("tensor", _Tensor),
        ("manager", ctypes.c_void_p),
        ("deleter", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
    )


# Addresses, not objects: a capsule that is going away must not be referred to again.
_new_capsule = ctypes.PYFUNCTYPE(
    ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p
)(("PyCapsule_New", ctypes.pythonapi))
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_IsValid", ctypes.pythonapi)
)
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)

_lent: dict[int, tuple[object, ...]] = {}
"""By its address, what each tensor that is out with a consumer keeps alive."""


# A consumer may call this from a thread of its own: ctypes takes the interpreter's lock for it.
@ctypes.CFUNCTYPE(None, ctypes.c_void_p)  # type: ignore[untyped-decorator]
def _give_back(address: int) -> None:
    _lent.pop(address)


@ctypes.CFUNCTYPE(None, ctypes.c_void_p)  # type: ignore[untyped-decorator]
def _let_go(capsule: int) -> None:
    # A capsule that was read has another name, and its reader calls the deleter.
    if _is_valid(capsule, _NAME):
        _give_back(_pointer(capsule, _NAME))


def make_capsule(
    address: int, shape: tuple[int, ...], device: tuple[int, int], owner: object
) -> Any:
    """Returns a DLPack capsule of dense uint8 memory.

    Args:
        address: where the memory begins.
        shape: sizes, the last axis densest.
        device: DLPack's type and number of the device that it is on.
        owner: kept alive as long as the tensor is in use.
    """
    sizes = (ctypes.c_int64 * len(shape))(*shape)
    steps = (ctypes.c_int64 * len(shape))(*(prod(shape[i + 1 :]) for i in range(len(shape))))
    tensor = _Tensor(address, *device, len(shape), _UINT, 8, 1, sizes, steps, 0)
    managed = _ManagedTensor(tensor, None, _give_back)
    place = ctypes.addressof(managed)
    _lent[place] = (managed, sizes, steps, owner)
    return _new_capsule(place, _NAME, ctypes.cast(_let_go, ctypes.c_void_p))


@dataclass(frozen=True, eq=False, slots=True)
class DlpackFrame:
    """A frame in memory that stays while the frame, its slices or a consumer is there.

    What is in the memory has arrived, so consumers need not wait for a stream; one that reads it
    on a stream of its own keeps the tensor until that is done.

    Args:
        address: where the memory begins.
        shape: sizes of dense uint8 memory, the last axis densest.
        device: DLPack's type and number of the device that it is on.
        owner: what the memory lives as long as.
    """

    address: int
    shape: tuple[int, ...]
    device: tuple[int, int]
    owner: object

    def __getitem__(self, rows: slice) -> DlpackFrame:
        """Returns some of its rows, over the same memory.

        Raises:
            ValueError: the slice has a step.
        """
        start, stop, step = rows.indices(self.shape[0])
        if step != 1:
            raise ValueError(f"a frame's rows are sliced with step 1: got {step}")
        num_rows, width = max(0, stop - start), prod(self.shape[1:])
        address = self.address + start * width
        return DlpackFrame(address, (num_rows, *self.shape[1:]), self.device, self.owner)

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """Returns a capsule of version 0, which every consumer reads.

        Args:
            stream: the consumer's; the memory is ready for any.
            max_version: the newest version that the consumer reads.
            dl_device: where it wants the memory, this one's device or None.
            copy: whether it wants a copy; True cannot be had.

        Raises:
            BufferError: a copy or another device is asked for.
        """
        if copy or dl_device not in (None, self.device):
            raise BufferError(f"a frame is read where it is, on device {self.device}")
        return make_capsule(self.address, self.shape, self.device, self.owner)

    def __dlpack_device__(self) -> tuple[int, int]:
        """Returns DLPack's device type and number."""
        return self.device
