"""One item ahead: the next block is read while the caller works on the current one."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def read_ahead(items: Generator[T, None, None]) -> Iterator[T]:
    """The items of a generator, each computed on a thread while the caller has the one before.

    At most two items exist at a time. Errors arrive where the item would have; leaving early closes the generator.
    """
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as thread:
            upcoming = thread.submit(next, items, None)
            while (item := upcoming.result()) is not None:
                upcoming = thread.submit(next, items, None)
                yield item
                del item
    finally:
        items.close()  # after the thread has ended: a generator that runs cannot be closed
