"""torchrun agents that stand for machines, in process groups of their own so that nothing outlives a test."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

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


class Machine(NamedTuple):
    """What differs between machines: how a command is started there, and variables."""

    prefix: tuple[str, ...] = ()
    variables: Mapping[str, str] = {}


def two_local_machines() -> list[Machine]:
    """Two agents on this machine with one process each, which meet at 127.0.0.1."""
    common = {
        "NNODES": "2",
        "RDZV_ENDPOINT": f"127.0.0.1:{free_port()}",
        "LOCAL_ADDR": "127.0.0.1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    return [Machine(variables=common | {"RDZV_CONF": f"is_host={is_host}"}) for is_host in ("true", "false")]


class Agents:
    """launch/torchrun.sh on each machine."""

    def __init__(self, folder: Path, machines: Sequence[Machine], *overrides: str, **variables: str) -> None:
        environment = os.environ | {
            "NPROC": "1",
            "OMP_NUM_THREADS": "1",
            "TORCH_DISTRIBUTED_DEBUG": "DETAIL",
            "TORCHRUN": f"{sys.executable} -m torch.distributed.run",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            **variables,
        }
        self.logs = [folder / f"agent{number}.log" for number in range(len(machines))]
        self.processes = []
        for machine, log in zip(machines, self.logs, strict=True):
            with log.open("w") as file:
                self.processes.append(
                    subprocess.Popen(
                        [*machine.prefix, "bash", str(TORCHRUN), *TINY, *overrides],
                        cwd=folder,
                        env=environment | machine.variables,
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
        for pid in [*self.workers(number), self.processes[number].pid]:
            os.kill(pid, signal.SIGKILL)

    def workers(self, number: int) -> list[int]:
        """The processes that an agent has started and that have not ended, waited for or not."""
        pid = self.processes[number].pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(child) for child in children if Path(f"/proc/{child}/stat").read_text().split()[2] != "Z"]

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
