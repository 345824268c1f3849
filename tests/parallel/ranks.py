"""Processes that are ranks of one gloo group, started once and used by many tests.

Mismatched collectives raise on both sides at once instead of hanging, every wait has a timeout, and a test that takes
too long has its processes ended by their ids.
"""

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

COLLECTIVE_TIMEOUT_SECONDS = 30
CALL_TIMEOUT_SECONDS = 90


class Ranks:
    """`num_ranks` spawned processes; `run` calls a function on all of them together."""

    def __init__(self, num_ranks: int) -> None:
        self.num_ranks = num_ranks
        context = multiprocessing.get_context("spawn")
        port = free_port()
        environment = {
            "TORCH_DISTRIBUTED_DEBUG": "DETAIL",
            "PYTHONFAULTHANDLER": "1",
            "OMP_NUM_THREADS": "1",
            "DS_ACCELERATOR": "cpu",
        }
        earlier = {name: os.environ.get(name) for name in environment}
        os.environ.update(environment)
        self._connections: list[Connection] = []
        self._processes = []
        for rank in range(num_ranks):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, num_ranks, port, theirs), daemon=True)
            process.start()
            self._connections.append(ours)
            self._processes.append(process)
        for name, value in earlier.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value

    def run(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """`function(*args)` on every rank; what each returned.

        Raises:
            RankError: the traceback of the first rank that failed.
        """
        for connection in self._connections:
            connection.send((function, args))
        answers = []
        for connection in self._connections:
            if not connection.poll(CALL_TIMEOUT_SECONDS):
                self.close()
                raise RankError(f"no answer in {CALL_TIMEOUT_SECONDS} s; the processes were ended")
            try:
                answers.append(connection.recv())
            except EOFError:
                answers.append((False, "a rank ended without an answer"))
        failures = [text for is_good, text in answers if not is_good]
        if failures:
            # The others may be in the middle of anything.
            self.close()
            raise RankError("\n".join(failures))
        return [value for _, value in answers]

    @property
    def is_alive(self) -> bool:
        return all(process.is_alive() for process in self._processes)

    def close(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()


class RankError(Exception):
    """A function failed on a rank."""


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _serve(rank: int, num_ranks: int, port: int, connection: Connection) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(num_ranks), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=COLLECTIVE_TIMEOUT_SECONDS))
    while True:
        try:
            function, args = connection.recv()
        except EOFError:
            return
        try:
            answer = (True, function(*args))
        except BaseException:
            answer = (False, f"rank {rank}: {traceback.format_exc()}")
        connection.send(answer)
