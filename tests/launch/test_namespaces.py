"""Two network namespaces with a cable between them stand for two machines; needs the right to make them."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastgan.train.checkpoint import list_checkpoints
from fastgan.train.stats import read_stats
from tests.launch.agents import WAIT_SECONDS, Agents, Machine

ADDRESSES = ("10.213.77.1", "10.213.77.2")
PORT = 29650


def ip(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def cable() -> Iterator[tuple[str, str]]:
    """Names of two namespaces that reach each other, and nothing else, by the interfaces `cable`."""
    if shutil.which("ip") is None:
        pytest.skip("there is no program ip")
    spaces = f"fastgan-{os.getpid()}-a", f"fastgan-{os.getpid()}-b"
    try:
        made = [ip("netns", "add", space) for space in spaces]
        if any(done.returncode for done in made):
            pytest.skip(f"this user cannot make network namespaces: {made[0].stderr.strip()}")
        done = ip("link", "add", "cable", "netns", spaces[0], "type", "veth", "peer", "cable", "netns", spaces[1])
        if done.returncode:
            pytest.skip(f"this machine has no virtual cables: {done.stderr.strip()}")
        for space, address in zip(spaces, ADDRESSES, strict=True):
            for command in (["addr", "add", f"{address}/24", "dev", "cable"], ["link", "set", "cable", "up"]):
                assert ip("-n", space, *command).returncode == 0
            assert ip("-n", space, "link", "set", "lo", "up").returncode == 0
        yield spaces
    finally:
        for space in spaces:
            ip("netns", "del", space)


def machines(spaces: tuple[str, str]) -> list[Machine]:
    return [
        Machine(
            prefix=("ip", "netns", "exec", space),
            variables={
                "NNODES": "2",
                "RDZV_ENDPOINT": f"{ADDRESSES[0]}:{PORT}",
                "RDZV_CONF": f"is_host={'true' if address == ADDRESSES[0] else 'false'}",
                "LOCAL_ADDR": address,
                "GLOO_SOCKET_IFNAME": "cable",
            },
        )
        for space, address in zip(spaces, ADDRESSES, strict=True)
    ]


@pytest.mark.slow
def test_two_machines_train_one_run_over_a_network(tmp_path: Path, cable: tuple[str, str]) -> None:
    agents = Agents(tmp_path, machines(cable), "total_images=128", "run_dir=run")
    try:
        codes = [process.wait(WAIT_SECONDS) for process in agents.processes]
    finally:
        agents.close()
    assert codes == [0, 0], agents.output()
    assert [tick["images_seen"] for tick in read_stats(tmp_path / "run")] == [64, 128]
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == ["000000064", "000000128"]


@pytest.mark.slow
def test_a_cut_cable_ends_the_processes_after_the_timeout(tmp_path: Path, cable: tuple[str, str]) -> None:
    """No connection is closed, nothing arrives any more: only the timeout can tell.

    The torchrun that is cut off from the meeting place waits for it for minutes; its process is what must not hang.
    """
    agents = Agents(tmp_path, machines(cable), "total_images=100_000_000", "run_dir=run")
    try:
        agents.wait_for(tmp_path / "run" / "checkpoints" / "000000064")
        assert ip("-n", cable[1], "link", "set", "cable", "down").returncode == 0
        code = agents.processes[0].wait(WAIT_SECONDS)
        end = time.monotonic() + WAIT_SECONDS
        while agents.workers(1) and time.monotonic() < end:
            time.sleep(0.5)
        assert agents.workers(1) == []
    finally:
        agents.close()
    assert code != 0
    for log in agents.logs:
        assert "waited more than parallel.timeout_seconds=20 for it" in log.read_text(), agents.output()
    assert list_checkpoints(tmp_path / "run")
