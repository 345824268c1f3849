"""Records of measurements: dated JSON files under benchmarks/records/, written once and never edited."""

from __future__ import annotations

import datetime
import itertools
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from benchmarks.rows import Figures
from fastgan.errors import DataError
from fastgan.train.environment import environment

RECORDS_DIR = Path(__file__).parent / "records"


class Processor(BaseModel):
    """The CPU of a record's machine."""

    model: str
    num_cores: int
    num_threads: int
    vectors: str
    bf16_instructions: list[str]


class Accelerator(BaseModel):
    """A GPU of it."""

    name: str
    memory_gib: float


class Machine(BaseModel):
    """What reports and comparisons read of `fastgan.train.environment`; it says more."""

    python: str
    packages: dict[str, str | None]
    optional_packages: dict[str, str | None]
    cpu: Processor
    gpus: list[Accelerator]


class Record(BaseModel):
    """A record as it is read back. `figures` of a record with rows is what `Figures` describes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    benchmark: str
    date: AwareDatetime
    command: str
    configuration: dict[str, Any]
    figures: dict[str, Any]
    environment: dict[str, Any]

    def rows(self) -> Figures:
        """The figures as rows with ceilings; without rows in a record of another kind."""
        return Figures.model_validate(self.figures) if "rows" in self.figures else Figures(rows=())


def write_record(
    benchmark: str,
    figures: Mapping[str, Any],
    *,
    configuration: Mapping[str, Any],
    arguments: Sequence[str] | None = None,
    records_dir: Path = RECORDS_DIR,
    module: str | None = None,
) -> Path:
    """Write YYYY-MM-DD-BENCHMARK.json; where there is one, YYYY-MM-DD-BENCHMARK-2.json and so on.

    Args:
        benchmark: what was measured, part of the file's name.
        figures: what was found, units in the names.
        configuration: what the figures hold for.
        arguments: of the command line; by default those of this process.
        module: within `benchmarks`, that was run; by default called as the benchmark is.
    """
    now = datetime.datetime.now(datetime.UTC)
    words = sys.argv[1:] if arguments is None else arguments
    record = {
        "benchmark": benchmark,
        "date": now.isoformat(timespec="seconds"),
        "command": shlex.join(["python", "-m", f"benchmarks.{module or benchmark}", *words]),
        "configuration": configuration,
        "figures": figures,
        "environment": environment(),
    }
    text = json.dumps(record, indent=2, allow_nan=False) + "\n"
    return _write_new(records_dir, f"{now:%Y-%m-%d}-{benchmark}", text)


def require_writable(folder: Path, *, option: str = "--out") -> None:
    """Makes the folder of results, which `option` named, before anything is measured for it.

    Raises:
        DataError: if nothing can be written there.
    """
    probe = folder / ".writable"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise DataError(f"{option} {folder} cannot be written: {error.strerror}; choose another folder") from None


def _write_new(folder: Path, stem: str, text: str) -> Path:
    """Writes STEM.json, or the first of STEM-2.json, STEM-3.json ... that does not exist."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        path = folder / (f"{stem}.json" if number == 1 else f"{stem}-{number}.json")
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            continue
        return path
    raise AssertionError("counting ends nowhere")


def read_record(path: Path) -> Record:
    """The record in the file at `path`.

    Raises:
        DataError: if there is none, or it is not a record.
    """
    try:
        record = Record.model_validate_json(path.read_bytes())
        record.rows()
        Machine.model_validate(record.environment)
    except OSError as error:
        raise DataError(f"record {path} cannot be read: {error.strerror}; give a file that a benchmark wrote") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise DataError(f"{path} is not a record: {place}: {first['msg']}; give one that a benchmark wrote") from None
    return record


def read_records(folder: Path) -> dict[Path, Record]:
    """All records in `folder`, the oldest first; those of one second in the order of their names.

    Raises:
        DataError: if a file is not a record.
    """
    records = {path: read_record(path) for path in sorted(folder.glob("*.json"))}
    return dict(sorted(records.items(), key=lambda item: item[1].date))
