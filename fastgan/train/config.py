"""A run's configuration: loading it from a preset, a file and overrides, and comparing it on resume.

    config = load_config("digits", overrides=["batch_images=128", "penalties.0.weight=2"])

The models themselves stand in `config_models`, from which the public ones are exported here, too.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ValidationError

from fastgan.errors import ConfigError, did_you_mean
from fastgan.train.config_dump import dump_config
from fastgan.train.config_errors import assignment, problem_lines
from fastgan.train.config_models import (
    FIRST_DISCRIMINATOR,
    AdamConfig,
    CheckpointConfig,
    DataConfig,
    DiscriminatorConfig,
    EmaConfig,
    EngineConfig,
    EnsembleConfig,
    GeneratorConfig,
    LogConfig,
    MemberConfig,
    ObjectiveConfig,
    OptimizerConfig,
    ParallelConfig,
    PenaltyConfig,
    RunConfig,
    ScheduleConfig,
)
from fastgan.train.config_presets import preset_names, preset_summary, preset_text
from fastgan.train.config_sources import COMMAND_LINE, MergedSources
from fastgan.train.config_yaml import YamlReader

__all__ = [
    "FIRST_DISCRIMINATOR",
    "KEYS_FREE_ON_RESUME",
    "AdamConfig",
    "CheckpointConfig",
    "DataConfig",
    "Difference",
    "DiscriminatorConfig",
    "EmaConfig",
    "EngineConfig",
    "EnsembleConfig",
    "GeneratorConfig",
    "LogConfig",
    "MemberConfig",
    "ObjectiveConfig",
    "OptimizerConfig",
    "ParallelConfig",
    "PenaltyConfig",
    "RunConfig",
    "ScheduleConfig",
    "dump_config",
    "load_config",
    "preset_names",
    "preset_summary",
    "resume_differences",
]

# Keys, or whole sections, that decide what is kept and shown and how the work is split, but not what is computed; and
# the length of the run. The numbers of list items are left out.
KEYS_FREE_ON_RESUME = (
    "run_dir",
    "total_images",
    "data.path",
    "data.num_workers",
    "data.cache_bytes",
    "data.max_bad_fraction",
    "device",
    "micro_batch_images",
    "profile",
    "checkpoint",
    "log",
    "parallel",
    "schedule.shares",
    "schedule.discriminator_ranks",
    "schedule.publish_every",
    "schedule.delay_steps",
    "schedule.max_staleness",
    "schedule.lockstep",
    "schedule.force",
    "ensemble.members.parallel",
)


def load_config(preset: str | None, *, config_file: Path | None = None, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration of `preset` or `config_file`, changed by `overrides`.

    Args:
        preset: name of a preset in the package, or None.
        config_file: a YAML file, or None. With `preset`, or a key `preset: NAME` of its own, it builds on that.
        overrides: `key=value` with a dotted key and a value in YAML; later ones win.
    Raises:
        ConfigError: one line per problem, each with where it was written, the key, the value and the rule.
    """
    sources = MergedSources()
    if config_file is not None:
        problems = _add_file(sources, config_file, preset=preset)
        default_name = re.sub(r"[^A-Za-z0-9._-]+", "-", config_file.stem).lstrip("-.") or "run"
    elif preset is not None:
        problems = _add_preset(sources, preset)
        default_name = preset
    else:
        raise ConfigError(f"no preset was given; give one of {', '.join(preset_names())}, or --config FILE")
    for override in overrides:
        problems += _add_override(sources, override)
    if problems:
        raise ConfigError("\n".join(problems))
    sources.values.setdefault("name", default_name)
    try:
        return RunConfig.model_validate(sources.values)
    except ValidationError as error:
        raise ConfigError("\n".join(problem_lines(error, model=RunConfig, sources=sources))) from None


class Difference(NamedTuple):
    """A dotted key and both of its values as `key=value`."""

    key: str
    saved: str
    asked: str


# Policies that a run may change between, with keys that only one of them reads: the updates per step stay.
_EXCHANGEABLE = {"alternate", "split"}
_KEYS_FREE_ON_EXCHANGE = (
    "schedule.policy",
    "schedule.share_fakes",
    "schedule.discriminator_start_images",
    "schedule.generator_start_images",
)


def resume_differences(saved: RunConfig, asked: RunConfig) -> list[Difference]:
    """Where `asked` differs from `saved` though a resumed run must not change it."""
    free: tuple[str, ...] = KEYS_FREE_ON_RESUME
    if {saved.schedule.policy, asked.schedule.policy} == _EXCHANGEABLE:
        free += _KEYS_FREE_ON_EXCHANGE
    return list(_differences(saved, asked, "", free=free))


def _differences(saved: BaseModel, asked: BaseModel, prefix: str, *, free: Sequence[str]) -> Iterator[Difference]:
    for name in type(saved).model_fields:
        key = f"{prefix}{name}"
        ours, theirs = getattr(saved, name), getattr(asked, name)
        path = re.sub(r"\.\d+\.", ".", key)
        if ours == theirs or path in free:
            continue
        if isinstance(ours, BaseModel):
            yield from _differences(ours, theirs, f"{key}.", free=free)
        elif any(other.startswith(f"{path}.") for other in free) and len(ours) == len(theirs):
            for index, items in enumerate(zip(ours, theirs, strict=True)):
                yield from _differences(*items, f"{key}.{index}.", free=free)
        else:
            both = (assignment((key,), config.model_dump()[name]) for config in (saved, asked))
            yield Difference(key, *both)


def _add_preset(sources: MergedSources, preset: str) -> list[str]:
    """Lay the preset over `sources`, after the one it builds on; returns problems."""
    source = f"preset {preset}"
    document = YamlReader(preset_text(preset), source=source, with_lines=False)
    base = document.values.pop("preset", None)
    problems = _add_preset(sources, base) if base else []
    sources.add_document(document.values, {}, source=source)
    return problems + document.problems


def _add_file(sources: MergedSources, file: Path, *, preset: str | None) -> list[str]:
    """Lay the preset that `file` builds on, then the file, over `sources`; returns problems."""
    document = YamlReader(_read(file), source=str(file), with_lines=True)
    values, lines = document.values, document.lines
    if not isinstance(values, dict):
        found = "the file is empty" if values is None else "the top level must be a mapping of keys to values"
        raise ConfigError(f"{document.place(lines.get((), 1))}: {found}; write for example 'batch_images: 64'")
    base = values.pop("preset", None)
    where = document.place(lines.pop(("preset",), 1))
    if not isinstance(base, str | None):
        raise ConfigError(f"{where}: {assignment(('preset',), base)} must be the name of a preset")
    if base is not None and preset is not None and base != preset:
        raise ConfigError(f"{where}: preset={base} contradicts {preset!r} on the command line; keep one of the two")
    problems: list[str] = []
    if base is not None or preset is not None:
        try:
            problems += _add_preset(sources, preset or base or "")
        except ConfigError as error:
            raise ConfigError(str(error) if base is None else f"{where}: {error}") from None
    sources.add_document(values, lines, source=str(file))
    return problems + document.problems


def _add_override(sources: MergedSources, override: str) -> list[str]:
    """Set the key that `override` names; returns problems."""
    key, equals, text = override.partition("=")
    path = tuple(key.strip().split("."))
    if not equals or not all(path):
        return [f"{COMMAND_LINE}: {override!r} is not an override; write key=value, e.g. batch_images=64"]
    try:
        document = YamlReader(text, source=f"{COMMAND_LINE}: {key}", with_lines=False)
    except ConfigError as error:
        return [f"{error}; put text with special characters in quotes"]
    try:
        sources.add_override(path, document.values, source=COMMAND_LINE)
    except ConfigError as error:
        return [f"{COMMAND_LINE}: {error}"]
    return document.problems


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        neighbours = [str(path) for path in file.parent.glob("*.y*ml")]
        raise ConfigError(f"{file}: no such file{did_you_mean(str(file), neighbours)}") from None
    except IsADirectoryError:
        raise ConfigError(f"{file}: is a folder; give a YAML file, e.g. {file / 'config.yaml'}") from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: is not UTF-8 text: {error.reason} at byte {error.start}") from None
