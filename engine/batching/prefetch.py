"""Host work that runs ahead of the device, in order and bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Prefetch(Generic[Result]):
    """Computes the results of a sequence a fixed number of items ahead of their use.

    Args:
        items: the sequence, of any length; read as far as `depth` ahead.
        compute: what is done with an item, on the executor's thread.
        executor: where it is done.
        depth: results that are kept ahead.
    """

    def __init__(
        self,
        items: Iterable[Item],
        compute: Callable[[Item], Result],
        executor: Executor,
        *,
        depth: int,
    ) -> None:
        self._futures: deque[Future[Result]] = deque()
        self._submissions = (executor.submit(compute, item) for item in items)
        for _ in range(depth):
            self._ahead()

    def take(self) -> Result:
        """Returns the next item's result, waiting for it if need be.

        Raises:
            IndexError: the sequence has ended.
        """
        future = self._futures.popleft()
        self._ahead()
        return future.result()

    def close(self) -> None:
        """Drops what was not taken and reads no further."""
        self._submissions.close()
        for future in self._futures:
            future.cancel()
        self._futures.clear()

    def _ahead(self) -> None:
        future = next(self._submissions, None)
        if future is not None:
            self._futures.append(future)
