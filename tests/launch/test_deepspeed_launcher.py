"""launch/deepspeed.sh trains: on this machine, and on two hosts of a hostfile that a stand-in for pdsh runs here."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fastgan.train.checkpoint import list_checkpoints
from tests.launch.agents import TINY, WAIT_SECONDS
from tests.parallel.ranks import free_port

SCRIPT = Path(__file__).resolve().parents[2] / "launch" / "deepspeed.sh"
# pdsh -S -f NUMBER -w HOST,HOST COMMAND... runs the words of the command on each host, with %n for its number.
PDSH = """#!/usr/bin/env bash
[ "$1 $2 $4" = "-S -f -w" ] || exit 2
case "$*" in *pkill*) exit 0 ;; esac
hosts=$5
shift 5
number=0
for host in ${hosts//,/ }; do
    echo "on $host"
    words="$*"
    bash -c "${words//%n/$number}" &
    number=$((number + 1))
done
wait
"""
SSH = "#!/usr/bin/env bash\nhostname\n"


def launch(folder: Path, **variables: str) -> str:
    """What the script and all that it started wrote. Fails if it did not end well."""
    programs = folder / "programs"
    programs.mkdir()
    for name, text in (("pdsh", PDSH), ("ssh", SSH)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1",
        "TORCH_DISTRIBUTED_DEBUG": "DETAIL",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "HOME": str(folder),
        **variables,
    }
    command = ["bash", str(SCRIPT), *TINY, "total_images=64", "run_dir=run"]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=WAIT_SECONDS)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, output
    return output


@pytest.mark.parametrize(
    ("variables", "ports"),
    [({}, range(20000, 30000)), ({"HOSTFILE": "hosts"}, [29500]), ({"MASTER_PORT": "4321"}, [4321])],
    ids=str,
)
def test_runs_on_one_machine_have_ports_of_their_own(variables: dict[str, str], ports: range | list[int]) -> None:
    plain = {key: value for key, value in os.environ.items() if key not in {"MASTER_PORT", "HOSTFILE"}}
    command = ["bash", str(SCRIPT), "digits"]
    environment = plain | {"DEEPSPEED": "echo"} | variables
    words = [subprocess.run(command, env=environment, capture_output=True, check=True).stdout.split() for _ in range(2)]
    found = [int(line[line.index(b"--master_port") + 1]) for line in words]
    assert all(port in ports for port in found)
    assert len(set(found)) == min(2, len(ports))


def files_of(run: Path) -> set[str]:
    (newest,) = list_checkpoints(run)
    return set(json.loads((newest / "manifest.json").read_text()))


@pytest.mark.slow
def test_two_processes_of_one_machine(tmp_path: Path) -> None:
    output = launch(tmp_path, NPROC="2", STAGE="1")
    assert output.count("2 processes") == 1
    # Stage 1 shards the optimizers, so that each process has saved its own part.
    shards = {f"generator_optimizer-0000{rank}-of-00002.safetensors" for rank in range(2)}
    assert shards | {"generator.safetensors"} <= files_of(tmp_path / "run")


@pytest.mark.slow
def test_two_hosts_of_a_hostfile(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("first slots=1\nsecond slots=1\n")
    output = launch(tmp_path, HOSTFILE="hosts")
    assert "on first\n" in output
    assert "on second\n" in output
    assert output.count("2 processes") == 1
    assert "discriminator_optimizer-00001-of-00002.safetensors" in files_of(tmp_path / "run")
