"""What both roles of `split` report at a tick, brought together on all ranks, and the record of what was read.

RUN/reads.jsonl   of free-running roles, a line a tick: the first step since the tick before, and for each role the
                  version of the other network that its updates have read in that step and the following ones
"""

import json
from pathlib import Path
from typing import Any

from fastgan.dist import World, gather_texts
from fastgan.errors import RunFolderError
from fastgan.train.files import replace_file
from fastgan.train.split_step import SplitStep
from fastgan.train.step_statistics import Statistics

READS_FILE = "reads.jsonl"


def numbers_of_both_roles(step: SplitStep, statistics: Statistics, run_dir: Path, world: World) -> dict[str, float]:
    """Means over the ranks of each role, skipped updates of both, and how old the weights were that updates read.

    All ranks call it together; rank 0 also writes what free-running roles have read.

    Raises:
        RunFolderError: if that cannot be written.
    """
    roles = step.roles
    mine = {
        "means": statistics.read(roles.own),
        "skipped": step.agreement.num_skipped,
        "reads": step.pop_reads(),
    }
    texts = gather_texts(world, json.dumps(mine))
    found = {network: json.loads(texts[rank]) for network, rank in roles.leaders.items()}
    if world.is_main and not roles.policy.lockstep:
        _append(run_dir / READS_FILE, {network: values["reads"] for network, values in found.items()})
    numbers: dict[str, float] = {}
    for values in found.values():
        numbers |= values["means"]
    staleness = [read[2] for values in found.values() for read in values["reads"]]
    return numbers | {
        "skipped_updates": float(sum(values["skipped"] for values in found.values())),
        "staleness": sum(staleness) / len(staleness),
        "staleness_max": float(max(staleness)),
    }


def rewind_reads(run_dir: Path, step: int) -> None:
    """Drops what was read from `step` on: the run goes back to a checkpoint, which may lie between two ticks.

    Raises:
        RunFolderError: if the file cannot be written.
    """
    path = run_dir / READS_FILE
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        values = json.loads(line)
        first = values.pop("first_step")
        if first < step:
            kept.append({"first_step": first} | {network: reads[: step - first] for network, reads in values.items()})
    replace_file(path, "".join(f"{json.dumps(line)}\n" for line in kept).encode())


def _append(path: Path, reads: dict[str, Any]) -> None:
    line = {"first_step": next(iter(reads.values()))[0][0]}
    line |= {network: [version for _, version, _ in values] for network, values in reads.items()}
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        raise RunFolderError(f"cannot write {path}: {error.strerror}; free space and resume") from error
