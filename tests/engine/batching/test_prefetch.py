"""Work ahead of its use: in order, bounded, closed, errors where they count."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from giffusion.engine.batching.prefetch import Prefetch


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def settle(executor: ThreadPoolExecutor) -> None:
    """Waits until the executor's one thread has done all that it was given."""
    executor.submit(int).result()


@given(items=st.lists(st.integers(), max_size=20), depth=st.integers(1, 25))
def test_results_come_in_order_and_once(items: list[int], depth: int) -> None:
    with ThreadPoolExecutor(3) as pool:
        computed = []

        def compute(item: int) -> int:
            computed.append(item)
            return item * 2

        prefetch = Prefetch(items, compute, pool, depth=depth)
        assert [prefetch.take() for _ in items] == [item * 2 for item in items]
        assert sorted(computed) == sorted(items)
        with pytest.raises(IndexError):
            prefetch.take()


@pytest.mark.parametrize("depth", [1, 3])
def test_no_more_than_depth_is_computed_ahead(executor: ThreadPoolExecutor, depth: int) -> None:
    """Of an endless sequence too, which is read no further than that."""
    read: list[int] = []
    computed: list[int] = []

    def items() -> Iterator[int]:
        for item in count():
            read.append(item)
            yield item

    prefetch = Prefetch(items(), computed.append, executor, depth=depth)
    for taken in range(5):
        settle(executor)
        assert read == computed == list(range(taken + depth))
        prefetch.take()


def test_work_is_done_on_the_executor(executor: ThreadPoolExecutor) -> None:
    prefetch = Prefetch([0], lambda _: threading.get_ident(), executor, depth=1)
    assert prefetch.take() == executor.submit(threading.get_ident).result()
    assert executor.submit(threading.get_ident).result() != threading.get_ident()


def test_an_error_surfaces_where_its_item_is_taken(executor: ThreadPoolExecutor) -> None:
    prefetch = Prefetch([1, 0, 2], lambda item: 2 // item, executor, depth=3)
    settle(executor)
    assert prefetch.take() == 2
    with pytest.raises(ZeroDivisionError):
        prefetch.take()
    assert prefetch.take() == 1


def test_close_drops_what_waits_and_reads_no_further(executor: ThreadPoolExecutor) -> None:
    gate, started, computed = threading.Event(), threading.Event(), []

    def compute(item: int) -> None:
        started.set()
        gate.wait(30)
        computed.append(item)

    read, dropped = [], threading.Event()

    def items() -> Iterator[int]:
        try:
            for item in count():
                read.append(item)
                yield item
        finally:
            dropped.set()

    prefetch = Prefetch(items(), compute, executor, depth=4)
    started.wait(30)
    prefetch.close()
    gate.set()
    settle(executor)
    # What the thread was at cannot be taken back; the three behind it never began.
    assert computed == [0]
    with pytest.raises(IndexError):
        prefetch.take()
    assert read == [0, 1, 2, 3]
    assert dropped.is_set()
    prefetch.close()
