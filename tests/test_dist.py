"""What torch says when a rank is lost becomes one line that says what to do."""

import pytest

from fastgan.dist import World, explained
from fastgan.errors import DistributedError

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
