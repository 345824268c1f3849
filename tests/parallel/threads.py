"""Threads as ranks: eight of them cost less than one process. Only what torch's threaded group knows can be used."""

import threading
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch.testing._internal.distributed import multi_threaded_pg

from fastgan.dist import World

TIMEOUT_SECONDS = 60


def run_threads(function: Callable[[World], Any], *, num_ranks: int = 8) -> list[Any]:
    """`function(world)` on every rank together; what each returned.

    Raises:
        BaseException: what the first rank that failed raised.
    """
    torch._C._distributed_c10d._set_thread_isolation_mode(True)
    multi_threaded_pg._install_threaded_pg()
    multi_threaded_pg.ProcessLocalGroup.reset()
    store = dist.HashStore()
    answers: list[Any] = [None] * num_ranks
    failures: list[BaseException] = []

    def serve(rank: int) -> None:
        dist.init_process_group("threaded", rank=rank, world_size=num_ranks, store=store)
        # Otherwise backward passes of all threads share one worker.
        torch.autograd.set_multithreading_enabled(False)
        try:
            answers[rank] = function(World(rank, num_ranks, rank, is_launched=True))
        except BaseException as error:
            failures.append(error)
            # Whoever waits for this rank ends, too.
            multi_threaded_pg.ProcessLocalGroup.exception_handle(error)
        finally:
            dist.destroy_process_group()

    threads = [threading.Thread(target=serve, args=(rank,), daemon=True) for rank in range(num_ranks)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT_SECONDS)
            assert not thread.is_alive(), "a rank hangs"
    finally:
        multi_threaded_pg._uninstall_threaded_pg()
        torch._C._distributed_c10d._set_thread_isolation_mode(False)
    if failures:
        raise failures[0]
    return answers
