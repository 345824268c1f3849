"""Two agents on this machine stand for two machines: they meet, train one run, and notice when one is lost."""

import json
import os
import signal
from pathlib import Path

import pytest
from PIL import Image

from fastgan.train.checkpoint import list_checkpoints
from fastgan.train.stats import read_stats
from tests.launch.agents import WAIT_SECONDS, Agents, Machine, two_local_machines
from tests.train.test_trace import is_inside


@pytest.mark.slow
def test_two_machines_train_one_run(tmp_path: Path) -> None:
    agents = Agents(tmp_path, two_local_machines(), "total_images=128", "run_dir=run")
    try:
        codes = [process.wait(WAIT_SECONDS) for process in agents.processes]
    finally:
        agents.close()
    assert codes == [0, 0], agents.output()
    assert agents.output().count("2 processes") == 1
    assert [tick["images_seen"] for tick in read_stats(tmp_path / "run")] == [64, 128]
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == ["000000064", "000000128"]


@pytest.mark.slow
def test_the_loss_of_a_machine_ends_the_run_with_an_error(tmp_path: Path) -> None:
    agents = Agents(tmp_path, two_local_machines(), "total_images=100_000_000", "run_dir=run")
    try:
        agents.wait_for(tmp_path / "run" / "checkpoints" / "000000064")
        agents.kill(1)
        code = agents.processes[0].wait(WAIT_SECONDS)
    finally:
        agents.close()
    assert code != 0
    text = agents.logs[0].read_text()
    assert "lost another rank" in text, text
    assert "checkpoints are sound: repair and use --resume" in text
    assert list_checkpoints(tmp_path / "run")


@pytest.mark.slow
def test_max_restarts_go_on_from_the_last_checkpoint(tmp_path: Path) -> None:
    machines = [Machine(variables={"NNODES": "1", "MAX_RESTARTS": "1", "RESUME": "run"})]
    agents = Agents(tmp_path, machines, "total_images=1280", NPROC="2")
    run = tmp_path / "run"
    try:
        agents.wait_for(run / "checkpoints" / "000000128")
        os.kill(agents.workers(0)[1], signal.SIGKILL)
        code = agents.processes[0].wait(WAIT_SECONDS)
    finally:
        agents.close()
    assert code == 0, agents.output()
    # The second start found a checkpoint, and its clock went on from there.
    (resumed,) = run.glob("environment-*.json")
    assert int(resumed.stem.partition("-")[2]) >= 128
    assert [tick["images_seen"] for tick in read_stats(run)] == list(range(64, 1281, 64))
    assert list_checkpoints(run)[-1].name == "000001280"


@pytest.mark.slow
def test_a_run_goes_on_with_the_machines_that_are_left(tmp_path: Path) -> None:
    elastic = {"NNODES": "1:2", "MAX_RESTARTS": "2", "RESUME": "run"}
    # Else torchrun waits half a minute for further machines, and as long to find one lost.
    quick = ",last_call_timeout=2,keep_alive_interval=1"
    machines = [
        Machine(variables={**machine.variables, **elastic, "RDZV_CONF": machine.variables["RDZV_CONF"] + quick})
        for machine in two_local_machines()
    ]
    agents = Agents(tmp_path, machines, "total_images=1280")
    run = tmp_path / "run"
    try:
        agents.wait_for(run / "checkpoints" / "000000128")
        agents.kill(1)
        code = agents.processes[0].wait(WAIT_SECONDS)
    finally:
        agents.close()
    text = agents.logs[0].read_text()
    assert code == 0, text
    assert "2 processes" in agents.output()
    assert "1 processes" in text, text
    (resumed,) = run.glob("environment-*.json")
    assert int(resumed.stem.partition("-")[2]) >= 128
    assert [tick["images_seen"] for tick in read_stats(run)] == list(range(64, 1281, 64))


@pytest.mark.slow
def test_sigterm_to_one_machine_saves_and_ends_both(tmp_path: Path) -> None:
    agents = Agents(tmp_path, two_local_machines(), "total_images=100_000_000", "run_dir=run")
    try:
        agents.wait_for(tmp_path / "run" / "checkpoints" / "000000064")
        agents.processes[1].send_signal(signal.SIGTERM)
        codes = [process.wait(WAIT_SECONDS) for process in agents.processes]
    finally:
        agents.close()
    assert 0 not in codes
    newest = int(list_checkpoints(tmp_path / "run")[-1].name)
    # All images of the last step, seen by both.
    assert f"stopped at {newest:,} images; to go on: fastgan train --resume" in agents.output()
    assert newest > 64


@pytest.mark.slow
def test_one_image_for_two_processes(tmp_path: Path) -> None:
    """Fewer images than ranks: each takes its samples from the endless order of the one."""
    (tmp_path / "images").mkdir()
    Image.new("L", (32, 32), 128).save(tmp_path / "images" / "only.png")
    machines = [Machine(variables={"NNODES": "1"})]
    agents = Agents(tmp_path, machines, "total_images=64", "run_dir=run", "data.path=images", NPROC="2")
    try:
        code = agents.processes[0].wait(WAIT_SECONDS)
    finally:
        agents.close()
    assert code == 0, agents.output()
    assert "1 images" in agents.output()
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == ["000000064"]


@pytest.mark.slow
def test_the_traces_of_two_processes_show_what_travels_when(tmp_path: Path) -> None:
    machines = [Machine(variables={"NNODES": "1"})]
    overrides = ("profile=true", "parallel.overlap=true", "schedule.share_fakes=false", "penalties=[]")
    agents = Agents(tmp_path, machines, "total_images=64", "run_dir=run", *overrides, NPROC="2")
    try:
        code = agents.processes[0].wait(WAIT_SECONDS)
    finally:
        agents.close()
    assert code == 0, agents.output()
    for rank in range(2):
        trace = json.loads((tmp_path / "run" / f"trace-{rank}.json").read_text())["traceEvents"]
        events = sorted((event for event in trace if event.get("ph") == "X"), key=lambda event: event["ts"])
        assert any(event["name"] == "gloo:all_reduce" for event in events)
        names = [event["name"] for event in events]
        # Sent in the backward pass; the generator makes images before the optimizer step that needs the sum.
        backward = names.index("discriminator: backward")
        sent = names.index("c10d::allreduce_", backward)
        assert is_inside(events[sent], events[backward])
        images = names.index("generator: images", sent)
        assert sent < images < names.index("discriminator: optimizer step", sent)
