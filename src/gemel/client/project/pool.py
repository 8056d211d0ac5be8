"""Work in threads along a graph: bounded, stops at the first failure, gives way to Ctrl-C."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)


def run_graph(
    needs: Mapping[Key, Iterable[Key]], work: Callable[[Key], None], limit: int = 16
) -> dict[Key, BaseException]:
    """Calls ``work`` for every key once all that it needs is done; gives back what failed.

    needs: key → keys before it; others than those in the mapping count as done.
    After a failure nothing new is begun, what runs is waited for. Threads are daemons: a
    Ctrl-C leaves at once, and every call to the engine has a deadline of its own.
    Raises ValueError for a cycle.
    """
    waiting = {key: {n for n in before if n in needs} for key, before in needs.items()}
    results: queue.SimpleQueue[tuple[Key, BaseException | None]] = queue.SimpleQueue()
    tasks: queue.SimpleQueue[Key | None] = queue.SimpleQueue()
    failed: dict[Key, BaseException] = {}
    running = 0
    threads = 0

    def serve() -> None:
        while (key := tasks.get()) is not None:
            problem: BaseException | None = None
            try:
                work(key)
            except BaseException as error:
                problem = error
            results.put((key, problem))

    try:
        while waiting or running:
            ready = [] if failed else [key for key, before in waiting.items() if not before]
            for key in ready[: max(0, limit - running)]:
                del waiting[key]
                tasks.put(key)
                running += 1
                if running > threads:
                    threading.Thread(target=serve, daemon=True).start()
                    threads += 1
            if not running:
                if failed or not waiting:
                    break
                raise ValueError(f"cycle among {sorted(map(str, waiting))}")
            key, problem = results.get()
            running -= 1
            if problem is not None:
                failed[key] = problem
                continue
            for before in waiting.values():
                before.discard(key)
    finally:
        for _ in range(threads):
            tasks.put(None)
    return failed


def each(
    items: Iterable[Key], work: Callable[[Key], None], limit: int = 16
) -> dict[Key, BaseException]:
    """Calls ``work`` for every item, whatever becomes of the others; gives back what failed."""
    failed: dict[Key, BaseException] = {}
    lock = threading.Lock()

    def guarded(item: Key) -> None:
        try:
            work(item)
        except Exception as error:
            with lock:
                failed[item] = error

    failed.update(run_graph(dict.fromkeys(items, ()), guarded, limit))
    return failed
