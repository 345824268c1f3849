"""What torch says when a rank is lost becomes one line that says what to do."""

import multiprocessing
import os
import threading
from multiprocessing.connection import Connection
from unittest import mock

import pytest
import torch
import torch.distributed as dist

import fastgan.dist
from fastgan.dist import FirstFailure, World, explained, process_group, sum_integers
from fastgan.errors import DataError, DistributedError, FastganError
from tests.parallel.ranks import free_port

WORLD = World(1, 2, 1, is_launched=True)


@pytest.mark.parametrize(
    "message",
    [
        "[../third_party/gloo/gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:1234",
        "Application timeout caused pair closure",
        "NCCL communicator was aborted on rank 1",
    ],
)
def test_a_lost_rank_is_explained(message: str) -> None:
    with (
        pytest.raises(DistributedError, match=r"rank 1 of 2 lost another rank, or waited more than .*=20 for it"),
        explained(WORLD, timeout_seconds=20),
    ):
        raise RuntimeError(message)


def test_another_error_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="shapes differ"), explained(WORLD, timeout_seconds=20):
        raise RuntimeError("shapes differ")


def test_the_others_say_which_rank_failed_first_and_why() -> None:
    first = FirstFailure(dist.HashStore())
    assert first.read() == ""
    for rank, error in ((0, DataError("51 of 100 images cannot be read; repair them")), (1, ValueError("later"))):
        with pytest.raises(type(error)), first.told(World(rank, 3)):
            raise error
    with (
        pytest.raises(DistributedError, match=r"^rank 1 of 2 ends because of the error of rank 0: 51 of 100 images"),
        explained(WORLD, timeout_seconds=20, first_failure=first.read),
    ):
        raise RuntimeError("Connection closed by peer")


@pytest.mark.parametrize("error", [RuntimeError("Connection closed by peer"), DistributedError("rank 1 ends")])
def test_the_loss_of_another_rank_is_nobodys_first_failure(error: Exception) -> None:
    first = FirstFailure(dist.HashStore())
    with pytest.raises(type(error)), first.told(WORLD):
        raise error
    assert first.read() == ""


def test_a_meeting_place_that_is_lost_or_silent_is_not_waited_for() -> None:
    store, silence = mock.Mock(), threading.Event()
    store.check.side_effect = RuntimeError("Connection reset by peer")
    assert FirstFailure(store).read() == ""
    store.check.side_effect = lambda keys: silence.wait(60)
    with mock.patch.object(fastgan.dist, "_STORE_SECONDS", 0.05):
        assert FirstFailure(store).read() == ""
    silence.set()


def fail_on_rank_1(rank: int, variables: dict[str, str], answer: Connection) -> None:
    """Rank 1 finds bad images while rank 0 waits for it; sends the error that this ends with."""
    os.environ |= variables
    world = World(rank, 2, rank, is_launched=True)
    try:
        with process_group(world, device=torch.device("cpu"), timeout_seconds=20):
            if rank == 1:
                raise DataError("51 of 100 images cannot be read")
            sum_integers(world, [1])
    except FastganError as error:
        answer.send(f"{type(error).__name__}: {error}")


def test_an_error_of_one_process_is_told_by_the_other() -> None:
    context = multiprocessing.get_context("spawn")
    variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "TORCH_DISTRIBUTED_DEBUG": "DETAIL"}
    pipes = [context.Pipe() for _ in range(2)]
    processes = [
        context.Process(target=fail_on_rank_1, args=(rank, variables, theirs), daemon=True)
        for rank, (_, theirs) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    try:
        assert all(ours.poll(60) for ours, _ in pipes)
        assert [ours.recv() for ours, _ in pipes] == [
            "DistributedError: rank 0 of 2 ends because of the error of rank 1: 51 of 100 images cannot be read",
            "DataError: 51 of 100 images cannot be read",
        ]
    finally:
        for process in processes:
            process.kill()
            process.join()
