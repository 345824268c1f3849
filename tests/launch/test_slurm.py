"""launch/slurm.sbatch, with stand-ins for Slurm's programs: how nodes meet, and what preemption does."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "launch" / "slurm.sbatch"
# A long list of nodes comes in several writes.
SCONTROL = """#!/usr/bin/env bash
if [ "$1 $2" != "show hostnames" ]; then echo "$@" > scontrol.log; exit; fi
echo node7; touch asked; sleep 0.3; echo node8
"""
# As srun does, it starts the command and hands signals on to it.
SRUN = """#!/usr/bin/env bash
[ "$1" = --kill-on-bad-exit=1 ] || exit 64
shift
exec "$@"
"""
# Stands for launch/torchrun.sh: trains until SIGTERM, then saves for a while; another SIGTERM ends that.
TRAINING = """trap 'trap - TERM; sleep 0.3; touch saved; exit 143' TERM
printf '%s\\n' "$NNODES" "$NPROC" "$RESUME" "$RDZV_ID" "$RDZV_ENDPOINT" "$*" > started.part
mv started.part started
[ -z "${CODE:-}" ] || exit "$CODE"
while :; do sleep 0.05; done
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    for name, text in (("scontrol", SCONTROL), ("srun", SRUN), ("torchrun.sh", TRAINING)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return tmp_path


def submit(folder: Path, **variables: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "FASTGAN_LAUNCH": str(folder),
        "SLURM_JOB_NODELIST": "node[7-8]",
        "SLURM_NNODES": "2",
        "SLURM_JOB_ID": "40123",
        **variables,
    }
    command = ["bash", str(SCRIPT), "runs/photos", "dcgan-64", "data.path=photos"]
    return subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True)


def wait_for(path: Path, job: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 30
    while not path.exists():
        assert job.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)


def test_preemption_saves_and_queues_the_job_again(folder: Path) -> None:
    job = submit(folder)
    try:
        wait_for(folder / "started", job)
        # To the script alone, as --signal=B:TERM does, and once more at the end of the time limit.
        job.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        job.send_signal(signal.SIGTERM)
        assert job.wait(30) == 0
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
    nodes, processes, run, name, place, arguments = (folder / "started").read_text().splitlines()
    assert (nodes, processes, run, name) == ("2", "gpu", "runs/photos", "40123")
    assert place == f"node7:{20000 + 123}"
    assert arguments == "dcgan-64 data.path=photos"
    # The job is queued again only when the checkpoint is there.
    assert (folder / "saved").exists()
    assert (folder / "scontrol.log").read_text() == "requeue 40123\n"


@pytest.mark.parametrize("code", ["0", "3"])
def test_a_run_that_ends_is_not_queued_again_and_its_code_is_the_jobs(folder: Path, code: str) -> None:
    job = submit(folder, CODE=code)
    assert job.wait(30) == int(code)
    assert not (folder / "scontrol.log").exists()


def test_preemption_before_the_start_queues_the_job_again(folder: Path) -> None:
    job = submit(folder)
    try:
        wait_for(folder / "asked", job)
        job.send_signal(signal.SIGTERM)
        assert job.wait(30) == 0
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
    assert (folder / "scontrol.log").read_text() == "requeue 40123\n"
