"""Two ranks, or three or four, for all tests of a worker."""

from collections.abc import Iterator

import pytest

from tests.parallel.ranks import Ranks
from tests.train.conftest import workplace  # noqa: F401 - a fixture


@pytest.fixture(scope="session")
def _started() -> Iterator[dict[int, Ranks]]:
    started: dict[int, Ranks] = {}
    yield started
    for ranks in started.values():
        ranks.close()


def _alive(started: dict[int, Ranks], num_ranks: int) -> Ranks:
    """Processes in a gloo group; started again if an earlier test has ended them."""
    if num_ranks not in started or not started[num_ranks].is_alive:
        started[num_ranks] = Ranks(num_ranks)
    return started[num_ranks]


@pytest.fixture
def two_ranks(_started: dict[int, Ranks]) -> Ranks:
    """Two processes."""
    return _alive(_started, 2)


@pytest.fixture
def three_ranks(_started: dict[int, Ranks]) -> Ranks:
    """Three processes."""
    return _alive(_started, 3)


@pytest.fixture
def four_ranks(_started: dict[int, Ranks]) -> Ranks:
    """Four processes."""
    return _alive(_started, 4)
