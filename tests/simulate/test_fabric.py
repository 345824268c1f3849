"""Times of collectives against worked-out figures."""

import pytest

from fastgan.errors import ConfigError
from fastgan.simulate import Fabric
from fastgan.simulate.quantities import bytes_per_second, pass_seconds, seconds

LINKS = {"gpus_per_node": 8, "intra_bytes_per_second": 200e9, "inter_bytes_per_second": 45e9}


@pytest.mark.parametrize(("num_ranks", "milliseconds"), [(8, 0.9), (64, 4.4), (1024, 4.6)])
def test_a_hundred_megabytes_take_what_is_known_of_such_machines(num_ranks: int, milliseconds: float) -> None:
    found = Fabric(**LINKS).all_reduce_seconds(range(num_ranks), 100e6)
    assert found * 1e3 == pytest.approx(milliseconds, rel=0.05)


def test_a_ring_and_a_tree_by_their_formulas() -> None:
    links = {"gpus_per_node": 2, "intra_bytes_per_second": 8.0, "inter_bytes_per_second": 4.0}
    latencies = {"intra_latency_seconds": 1.0, "inter_latency_seconds": 3.0}
    ring, tree, auto = (Fabric(**links, **latencies, algorithm=a) for a in ("ring", "tree", "auto"))
    # Within a node: 2 messages of half of the bytes; up and down one level.
    assert ring.all_reduce_seconds(range(2), 16.0) == 2 * (1.0 + 8.0 / 8.0)
    assert tree.all_reduce_seconds(range(2), 16.0) == 2 * (1.0 + 16.0 / 8.0)
    # Over four nodes, at the pace of the links between them.
    assert ring.all_reduce_seconds(range(8), 16.0) == 14 * (3.0 + 2.0 / 4.0)
    assert tree.all_reduce_seconds(range(8), 16.0) == 2 * (1.0 + 2 * 3.0 + 16.0 / 4.0)
    assert auto.all_reduce_seconds(range(8), 16.0) == tree.all_reduce_seconds(range(8), 16.0)
    assert auto.all_reduce_seconds(range(2), 16.0) == ring.all_reduce_seconds(range(2), 16.0)
    assert ring.broadcast_seconds(range(8), 16.0) == 1.0 + 2 * 3.0 + 16.0 / 4.0


def test_a_group_that_straddles_two_nodes_uses_the_links_between_them() -> None:
    fabric = Fabric(**LINKS)
    assert fabric.num_nodes(range(8, 16)) == 1
    assert fabric.num_nodes(range(7, 9)) == 2
    assert fabric.all_reduce_seconds(range(7, 9), 1e9) > 4 * fabric.all_reduce_seconds(range(8, 10), 1e9)


def test_one_rank_has_nobody_to_wait_for() -> None:
    assert Fabric(**LINKS).all_reduce_seconds(range(3, 4), 1e9) == Fabric(**LINKS).broadcast_seconds(range(1), 1e9) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gpus_per_node": 0}, "gpus_per_node=0 must be positive and finite"),
        ({"inter_bytes_per_second": float("inf")}, "inter_bytes_per_second=inf must be positive and finite"),
        ({"algorithm": "rign"}, "algorithm=rign must be one of auto, ring, tree, did you mean 'ring'?"),
    ],
)
def test_a_machine_that_cannot_be_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Fabric(**{**LINKS, **change})
    assert str(raised.value).startswith(message)


def test_quantities_with_their_units() -> None:
    assert bytes_per_second("450GB/s", option="--intra") == 450e9
    assert bytes_per_second("400Gb/s", option="--inter") == 50e9
    assert seconds("3us", option="--latency") == pytest.approx(3e-6)
    assert pass_seconds("13ms + .4ms", option="--generator") == pytest.approx((0.013, 0.0004))


@pytest.mark.parametrize("text", ["450", "GB/s", "-1GB/s", "450 gigabytes", "1e400000x", "nanGB/s"])
def test_quantities_without_number_or_unit_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--intra=.* must be a number and one of B, KB, .*; write 450GB/s"):
        bytes_per_second(text, option="--intra")


@pytest.mark.parametrize(("text", "rule"), [("0GB/s", "above 0"), ("1e999GB/s", "finite")])
def test_links_that_never_or_always_deliver_are_refused(text: str, rule: str) -> None:
    with pytest.raises(ConfigError, match=f"--intra=.* must be {rule}.*; write 450GB/s"):
        bytes_per_second(text, option="--intra")


def test_a_pass_without_the_time_of_an_image_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--generator=13ms must be the time of a pass plus that of each image"):
        pass_seconds("13ms", option="--generator")
