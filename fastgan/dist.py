"""The processes of a run: which one this is, how they meet, and the few small values that they agree on.

Each rank is one process with one device. A launcher such as torchrun names them through environment variables; without
a launcher a run is one process and nothing here communicates. Decisions are made from integers that all ranks have
reduced, so that they are the same everywhere.
"""

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as torch_dist
from torch import Tensor

from fastgan.errors import ConfigError, DistributedError, FastganError

_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
# What the messages of torch's backends have in common; gloo raises plain RuntimeErrors.
_MARKS = (
    "gloo",
    "NCCL",
    "Connection closed by peer",
    "Connection reset",
    "caused pair closure",
    "ProcessGroupWrapper",
    "mismatch between coll",
)
_FAILURE_KEY = "fastgan/first_failure"
_STORE_SECONDS = 3.0


@dataclass(frozen=True)
class World:
    """This process among those of the run, or of a part of them: `rank` of `num_ranks`, `local_rank` on its machine.

    `is_launched`: a launcher started it, so that there is a process group, if only of one rank.
    `group`: in which its ranks meet, of a part of the run; None for the default group, of all ranks.
    """

    rank: int = 0
    num_ranks: int = 1
    local_rank: int = 0
    is_launched: bool = False
    group: torch_dist.ProcessGroup | None = None

    @property
    def is_main(self) -> bool:
        """Whether this is the rank that logs and saves."""
        return self.rank == 0


# A run of one process, without a launcher.
ALONE = World()


def world_from_environment(environment: Mapping[str, str] | None = None) -> World:
    """What the launcher says; a world of one process when there is none.

    Raises:
        ConfigError: if only some of the launcher's variables are set, or they are not numbers that fit.
    """
    values = os.environ if environment is None else environment
    # MASTER_ADDR and MASTER_PORT alone are left behind in many shells.
    if "RANK" not in values and "WORLD_SIZE" not in values:
        return ALONE
    remedy = "start with torchrun --nproc-per-node=N -m fastgan ..., or unset RANK and WORLD_SIZE"
    missing = [name for name in _VARIABLES if name not in values]
    if missing:
        raise ConfigError(f"RANK or WORLD_SIZE is set but {', '.join(missing)} is not; {remedy}")
    texts = [values[name] for name in _VARIABLES[:3]]
    if not all(text.isascii() and text.isdigit() for text in texts):
        raise ConfigError(f"RANK, WORLD_SIZE, LOCAL_RANK = {', '.join(texts)} must be whole numbers; {remedy}")
    rank, num_ranks, local_rank = map(int, texts)
    if not local_rank <= rank < num_ranks:
        rule = "must satisfy LOCAL_RANK <= RANK < WORLD_SIZE"
        raise ConfigError(f"RANK={rank}, LOCAL_RANK={local_rank}, WORLD_SIZE={num_ranks} {rule}; {remedy}")
    return World(rank, num_ranks, local_rank, is_launched=True)


@contextmanager
def process_group(world: World, *, device: torch.device, timeout_seconds: float) -> Iterator[None]:
    """The process group of a launched world, while entered; nothing for a world without launcher.

    Small integers travel by gloo, tensors of a GPU by NCCL. A rank that waits longer than the timeout for another ends.

    Raises:
        DistributedError: if the ranks do not find each other, or one is lost while the group is entered.
    """
    if not world.is_launched:
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    with explained(world, timeout_seconds=timeout_seconds):
        torch_dist.init_process_group(
            backend,
            rank=world.rank,
            world_size=world.num_ranks,
            timeout=timedelta(seconds=timeout_seconds),
            device_id=device if device.type == "cuda" else None,
        )
        first = FirstFailure(torch_dist.distributed_c10d._get_default_store())
        try:
            with explained(world, timeout_seconds=timeout_seconds, first_failure=first.read), first.told(world):
                yield
        finally:
            torch_dist.destroy_process_group()


def subgroup(ranks: range, *, timeout_seconds: float) -> torch_dist.ProcessGroup:
    """A process group of `ranks`, which all ranks of the run make together, members or not, each in the same order.

    It is without the checks of TORCH_DISTRIBUTED_DEBUG=DETAIL: they wait for all members where a collective starts, so
    that nothing would be asynchronous, and DDP crashes over a group that has them (torch 2.13).
    """
    debug: Any = torch_dist  # These names are public, but not in torch's types.
    level = debug.get_debug_level()
    debug.set_debug_level(debug.DebugLevel.OFF)
    try:
        group: torch_dist.ProcessGroup = torch_dist.new_group(ranks, timeout=timedelta(seconds=timeout_seconds))
        return group
    finally:
        debug.set_debug_level(level)


@contextmanager
def explained(world: World, *, timeout_seconds: float, first_failure: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Turns what torch raises when a rank is lost into one line that says what to do.

    Args:
        world: this process and its run.
        timeout_seconds: for which ranks wait for another.
        first_failure: what the rank that was lost has said, "" if it has said nothing.
    Raises:
        DistributedError: instead of an error of a collective.
    """
    try:
        yield
    except RuntimeError as error:
        if not _tells_of_a_loss(error):
            raise
        if told := first_failure():
            raise DistributedError(f"rank {world.rank} of {world.num_ranks} ends because of {told}") from error
        reason = " ".join(str(error).split())[:200]
        raise DistributedError(
            f"rank {world.rank} of {world.num_ranks} lost another rank, or waited more than "
            f"parallel.timeout_seconds={timeout_seconds:g} for it ({reason}); the first error of another rank tells "
            "why; checkpoints are sound: repair and use --resume"
        ) from error


def _tells_of_a_loss(error: Exception) -> bool:
    is_marked = isinstance(error, RuntimeError) and any(mark in str(error) for mark in _MARKS)
    return is_marked or isinstance(error, torch_dist.DistError)


class FirstFailure:
    """The error of the first rank that failed, left for the others where the ranks have met.

    That place is lost with the process that keeps it, rank 0 as a rule: nobody waits long for it.
    """

    def __init__(self, store: torch_dist.Store) -> None:  # type: ignore[name-defined]
        self._store = store

    @contextmanager
    def told(self, world: World) -> Iterator[None]:
        """Leaves the error of the body for the other ranks, unless it is about one of them."""
        try:
            yield
        except Exception as error:
            if not (isinstance(error, DistributedError) or _tells_of_a_loss(error)):
                kind = "" if isinstance(error, FastganError) else f"{type(error).__name__}: "
                text = f"the error of rank {world.rank}: {kind}{error}"
                self._ask(lambda: self._store.compare_set(_FAILURE_KEY, "", text))
            raise

    def read(self) -> str:
        """Of the first rank that failed; "" if none has left an error."""
        found = self._ask(lambda: self._store.get(_FAILURE_KEY) if self._store.check([_FAILURE_KEY]) else b"")
        return found.decode(errors="replace")

    def _ask(self, question: Callable[[], bytes]) -> bytes:
        answers: list[bytes] = []

        def ask() -> None:
            # The place is lost.
            with suppress(RuntimeError):
                answers.append(question())

        # A machine that is gone does not answer at all.
        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(_STORE_SECONDS)
        return answers[0] if answers else b""


def max_integers(world: World, values: Sequence[int]) -> list[int]:
    """The largest of each value over all ranks; all ranks call it together."""
    if world.num_ranks == 1:
        return list(values)
    numbers = torch.tensor(list(values), dtype=torch.int64)
    torch_dist.all_reduce(numbers, op=torch_dist.ReduceOp.MAX, group=world.group)
    return [int(value) for value in numbers.tolist()]


def sum_integers(world: World, values: Sequence[int]) -> list[int]:
    """The sum of each value over all ranks; all ranks call it together."""
    return [int(value) for value in sum_over_ranks(world, torch.tensor(list(values), dtype=torch.int64)).tolist()]


def sum_over_ranks(world: World, values: Tensor) -> Tensor:
    """The sum of `values` over all ranks, on the CPU; all ranks call it together with the same shape."""
    total = values.detach().cpu().clone()
    if world.num_ranks > 1:
        torch_dist.all_reduce(total, group=world.group)
    return total


def from_main(world: World, make: Callable[[], str]) -> str:
    """What `make` returns on rank 0, on every rank.

    Raises:
        FastganError: on rank 0 whatever `make` raises; on the others a `DistributedError` that says so.
    """
    if world.num_ranks == 1:
        return make()
    failure: FastganError | None = None
    text = ""
    if world.is_main:
        try:
            text = make()
        except FastganError as error:
            failure = error
    is_failed, size = max_integers(world, [failure is not None, len(text.encode())])
    if failure is not None:
        raise failure
    if is_failed:
        raise DistributedError(f"rank {world.rank} ends because rank 0 failed; its error is the one to repair")
    content = torch.zeros(size, dtype=torch.uint8)
    if world.is_main:
        content = torch.tensor(list(text.encode()), dtype=torch.uint8)
    torch_dist.broadcast(content, group_src=0, group=world.group)
    return bytes(content.tolist()).decode()


@contextmanager
def together(world: World) -> Iterator[None]:
    """Fails on all ranks if the body fails on any; all ranks enter it together, and the body does not communicate.

    Raises:
        FastganError: on a rank whose body raised it; on the others a `DistributedError` that says so.
    """
    failure: FastganError | None = None
    try:
        yield
    except FastganError as error:
        failure = error
    (any_failed,) = max_integers(world, [failure is not None])
    if failure is not None:
        raise failure
    if any_failed:
        raise DistributedError(f"rank {world.rank} ends because another failed; its error is the one to repair")


def gather_texts(world: World, text: str) -> list[str]:
    """The text of every rank, in their order, on every rank."""
    if world.num_ranks == 1:
        return [text]
    content = text.encode()
    (size,) = max_integers(world, [len(content)])
    # A zero byte ends each text.
    padded = torch.tensor(list(content.ljust(size + 1, b"\0")), dtype=torch.uint8)
    found = [torch.empty_like(padded) for _ in range(world.num_ranks)]
    torch_dist.all_gather(found, padded, group=world.group)
    return [bytes(values.tolist()).rstrip(b"\0").decode() for values in found]


def check_same(world: World, values: Mapping[str, str], *, remedy: str) -> None:
    """Compares `values` with those of rank 0.

    Raises:
        DistributedError: on all ranks, naming what differs.
    """
    if world.num_ranks == 1:
        return
    names = sorted(values)
    theirs = from_main(world, lambda: "\n".join(values[name] for name in names)).split("\n")
    differs = [int(values[name] != other) for name, other in zip(names, theirs, strict=True)]
    found = [name for name, differing in zip(names, max_integers(world, differs), strict=True) if differing]
    if found:
        raise DistributedError(f"the ranks differ in {', '.join(found)}; {remedy}")
