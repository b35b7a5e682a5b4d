"""Scratch memory that execution contexts of one stream share, since they run one after the other.

`graph.py` takes a share for each context. The invariant: a context's scratch memory stays where it
was when the context first ran, because captured graphs hold its address.
"""

from __future__ import annotations

from giffusion.engine.runtimes.cuda.protocol import Cuda
from giffusion.engine.runtimes.cuda.resources import DeviceMemory, Resource


class Arena:
    """Gives shares of scratch memory, as few blocks as it can.

    Contexts are opened before any of them runs, so usually there is one block, as large as the
    largest context needs. One that is opened later and needs more gets another.
    """

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._blocks: list[_Block] = []

    def share(self, num_bytes: int) -> Scratch:
        """Returns a share of at least a size, for one context.

        Raises:
            DeviceMemoryError: the device has no room for it; shares that were given stay good.
        """
        self._blocks = [block for block in self._blocks if block.num_shares]
        fitting = [block for block in self._blocks if block.num_bytes >= num_bytes]
        movable = [block for block in self._blocks if not block.is_used]
        if fitting:
            block = min(fitting, key=lambda block: block.num_bytes)
        elif movable:
            block = movable[0]
            block.grow(num_bytes)
        else:
            block = _Block(self._cuda, num_bytes)
            block.memory()
            self._blocks.append(block)
        return Scratch(self._cuda, block)


class Scratch(Resource):
    """One context's share; the memory is freed with its last."""

    def __init__(self, cuda: Cuda, block: _Block) -> None:
        super().__init__(cuda)
        self._block = block
        block.num_shares += 1

    @property
    def address(self) -> int:
        """Where it lies; once asked for it stays there."""
        self._block.is_used = True
        return self._block.memory().address

    def _free(self) -> None:
        self._block.num_shares -= 1
        if not self._block.num_shares:
            self._block.close()


class _Block:
    """Memory that contexts share; it may move until the first of them runs."""

    def __init__(self, cuda: Cuda, num_bytes: int) -> None:
        self._cuda = cuda
        self._memory: DeviceMemory | None = None
        self.num_bytes = num_bytes
        self.num_shares = 0
        self.is_used = False

    def memory(self) -> DeviceMemory:
        if self._memory is None:
            self._memory = DeviceMemory(self._cuda, self.num_bytes)
        return self._memory

    def grow(self, num_bytes: int) -> None:
        # Freed first: both may not fit. Where the larger does not, the old size is had again.
        before, self.num_bytes = self.num_bytes, num_bytes
        self.close()
        try:
            self.memory()
        except BaseException:
            self.num_bytes = before
            raise

    def close(self) -> None:
        if self._memory is not None:
            self._memory.close()
            self._memory = None
