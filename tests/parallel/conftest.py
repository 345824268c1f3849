"""Two ranks for all tests of a worker."""

from collections.abc import Iterator

import pytest

from tests.parallel.ranks import Ranks


@pytest.fixture(scope="session")
def _two_ranks() -> Iterator[list[Ranks]]:
    holder = [Ranks(2)]
    yield holder
    holder[0].close()


@pytest.fixture
def two_ranks(_two_ranks: list[Ranks]) -> Ranks:
    """Two processes in a gloo group; started again if an earlier test has ended them."""
    if not _two_ranks[0].is_alive:
        _two_ranks[0] = Ranks(2)
    return _two_ranks[0]
