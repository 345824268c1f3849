"""Two agents on this machine stand for two machines: they meet, train one run, and notice when one is lost."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fastgan.train.checkpoint import list_checkpoints
from fastgan.train.stats import read_stats
from tests.parallel.ranks import free_port

TORCHRUN = Path(__file__).resolve().parents[2] / "launch" / "torchrun.sh"
TINY = (
    "digits",
    "batch_images=8",
    "generator.channels=2",
    "generator.max_channels=8",
    "generator.latent_dim=8",
    "discriminator.channels=2",
    "discriminator.max_channels=8",
    "discriminator.spectral_norm=true",
    "log.tensorboard=off",
    "log.num_samples=4",
    "log.every_images=64",
    "checkpoint.every_images=64",
    "device=cpu",
    "precision=fp32",
    "parallel.timeout_seconds=20",
)
WAIT_SECONDS = 150


class Agents:
    """Two torchrun agents with one process each, in process groups of their own so that nothing outlives the test."""

    def __init__(self, folder: Path, *overrides: str, **variables: str) -> None:
        environment = os.environ | {
            "NNODES": "2",
            "NPROC": "1",
            "RDZV_ENDPOINT": f"127.0.0.1:{free_port()}",
            "LOCAL_ADDR": "127.0.0.1",
            "GLOO_SOCKET_IFNAME": "lo",
            "OMP_NUM_THREADS": "1",
            "TORCHRUN": f"{sys.executable} -m torch.distributed.run",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            **variables,
        }
        self.logs = [folder / f"agent{number}.log" for number in range(2)]
        self.processes = []
        for number, log in enumerate(self.logs):
            conf = {"RDZV_CONF": f"is_host={'true' if number == 0 else 'false'}"}
            with log.open("w") as file:
                self.processes.append(
                    subprocess.Popen(
                        ["bash", str(TORCHRUN), *TINY, *overrides],
                        cwd=folder,
                        env=environment | conf,
                        stdout=file,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
                )

    def output(self) -> str:
        return "".join(log.read_text() for log in self.logs)

    def wait_for(self, path: Path) -> None:
        end = time.monotonic() + WAIT_SECONDS
        while not path.exists():
            assert time.monotonic() < end, self.output()
            time.sleep(0.1)

    def kill(self, number: int) -> None:
        """SIGKILL to an agent and its process, as when the machine is gone."""
        children = Path(f"/proc/{self.processes[number].pid}/task/{self.processes[number].pid}/children").read_text()
        for pid in [*map(int, children.split()), self.processes[number].pid]:
            os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.slow
def test_two_machines_train_one_run(tmp_path: Path) -> None:
    agents = Agents(tmp_path, "total_images=128", "run_dir=run")
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
    agents = Agents(tmp_path, "total_images=100_000_000", "run_dir=run")
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
