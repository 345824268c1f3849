"""The folder of a run: where it is made, and what says which run it holds."""

import fcntl
import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from fastgan.errors import CheckpointError, ConfigError, RunFolderError
from fastgan.train.config import Difference, RunConfig, dump_config, load_config, resume_differences
from fastgan.train.config_models import KEYS_OF_POLICIES
from fastgan.train.environment import environment
from fastgan.train.files import replace_file

CONFIG_FILE = "config.yaml"
_MAX_RUNS = 100_000
# Differences that an error names one by one.
_MAX_DIFFERENCES = 3


def create_run_folder(config: RunConfig) -> Path:
    """An empty folder: `config.run_dir`, or the next free `runs/NAME-NNN`.

    Raises:
        RunFolderError: if it cannot be made, or holds something already.
    """
    if config.run_dir is not None:
        path = _expand(config.run_dir)
        _make(path, exist_ok=True)
        if any(path.iterdir()):
            resume = f"to continue it: fastgan train --resume {path}"
            raise RunFolderError(f"run_dir={path} is not empty; choose another folder, or, {resume}")
        return path
    for number in range(_MAX_RUNS):
        path = Path("runs") / f"{config.name}-{number:03d}"
        try:
            _make(path, exist_ok=False)
        except FileExistsError:
            continue  # another run, perhaps one that started at the same moment
        return path
    raise RunFolderError(f"runs/ holds {_MAX_RUNS} runs called {config.name}; choose a folder with run_dir=PATH")


class RunLock:
    """Keeps other processes from training in the same folder while it is entered.

    Raises:
        RunFolderError: on entering, if another process trains there, or the folder cannot be written.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir

    def __enter__(self) -> None:
        run_dir = self._run_dir
        try:
            self._file = (run_dir / ".lock").open("a")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise RunFolderError(f"another process trains in {run_dir}; wait for it, or take another folder") from error
        except OSError as error:
            raise RunFolderError(f"cannot write run folder {run_dir}: {error.strerror}; choose another") from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def write_run_facts(run_dir: Path, config: RunConfig, *, precision: str, images_seen: int = 0) -> None:
    """Writes `config.yaml`, without the folder's own name so that the folder can be moved, and `environment.json`.

    That has the precision, too, which the configuration may have left to a measurement. A resumed run leaves the
    earlier environment and writes `environment-IMAGES.json`.

    Raises:
        RunFolderError: if they cannot be written.
    """
    movable = config.model_copy(update={"run_dir": None})
    replace_file(run_dir / CONFIG_FILE, dump_config(movable).encode())
    name = f"environment-{images_seen:09d}.json" if images_seen else "environment.json"
    replace_file(run_dir / name, (json.dumps({"precision": precision, **environment()}, indent=2) + "\n").encode())


def read_config(run_dir: Path, *, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration that a run was started with, changed by `overrides`.

    Raises:
        RunFolderError: if the folder holds no run.
        ConfigError: if an override is wrong.
    """
    path = run_dir / CONFIG_FILE
    if run_dir.is_file():
        raise RunFolderError(f"{run_dir} is a file; give the folder of a run, such as {run_dir.parent}")
    if not path.is_file():
        raise RunFolderError(f"{run_dir} holds no run: {path} is missing; runs are folders such as runs/digits-000")
    return load_config(None, config_file=path, overrides=overrides)


def resume_config(run_dir: Path, *, asked: RunConfig | None, overrides: Sequence[str]) -> RunConfig:
    """The configuration of a run that goes on: the saved one with what may change taken from the command line.

    Args:
        asked: the configuration of the preset or file that was named with `--resume`, or None.
        overrides: `key=value` from the command line.
    Raises:
        CheckpointError: if a key differs that must stay, since the run would not be the same run.
    """
    saved = read_config(run_dir)
    config = read_config(run_dir, overrides=[*_policy_resets(saved, overrides), *overrides])
    if asked is not None and asked.name != saved.name:
        remedy = f"to go on with it: fastgan train --resume {run_dir}"
        raise CheckpointError(f"{run_dir} is a run of {saved.name}, not of {asked.name}; {remedy}")
    for other, source in ((asked, "the preset or file given with --resume"), (config, "the command line")):
        differing = resume_differences(saved, other) if other is not None else []
        if differing:
            remedy = f"a resumed run must not change them: leave {source} out or as it was, or start a new run"
            raise CheckpointError(f"{run_dir} was trained with {_shortened(differing)}; {remedy}")
    if config.run_dir is not None and _expand(config.run_dir).resolve() != run_dir.resolve():
        raise ConfigError(f"run_dir={config.run_dir} is not the run to resume, {run_dir}; leave one of them out")
    return config


def _policy_resets(saved: RunConfig, overrides: Sequence[str]) -> list[str]:
    """Overrides that take back what the saved run's policy reads and the one asked for does not."""
    values = dict(override.split("=", 1) for override in overrides if "=" in override)
    read = KEYS_OF_POLICIES.get(values.get("schedule.policy", saved.schedule.policy).strip())
    if read is None:
        return []
    defaults = {name: field.default for name, field in type(saved.schedule).model_fields.items()}
    given = KEYS_OF_POLICIES[saved.schedule.policy]
    return [f"schedule.{key}={json.dumps(defaults[key])}" for key in given if key not in read]


def _shortened(differing: Sequence[Difference]) -> str:
    """The first few differences in words."""
    named = [f"{difference.saved}, not {difference.asked}" for difference in differing[:_MAX_DIFFERENCES]]
    num_others = len(differing) - len(named)
    others = [f"{num_others} more key{'s' if num_others > 1 else ''} of other values"] if num_others else []
    return "; ".join(named + others)


def _expand(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise RunFolderError(f"run_dir={path} names a user without a home folder; write the whole path") from error


def _make(path: Path, *, exist_ok: bool) -> None:
    try:
        path.mkdir(parents=True, exist_ok=exist_ok)
        probe = path / ".writable"
        probe.touch()
        probe.unlink()
        next(path.iterdir(), None)
    except FileExistsError:
        if not exist_ok:
            raise
        raise RunFolderError(
            f"cannot write run folder {path}: it is a file; choose another with run_dir=PATH"
        ) from None
    except OSError as error:
        raise RunFolderError(
            f"cannot write run folder {path}: {error.strerror}; choose another with run_dir=PATH"
        ) from error
