"""Checkpoints: a folder of safetensors and JSON that is either complete or absent.

    RUN/checkpoints/000102400/
        generator.safetensors  discriminator.safetensors  generator_ema.safetensors
        generator_optimizer.safetensors  discriminator_optimizer.safetensors
        generator_published.safetensors  discriminator_published.safetensors  (of split: what roles read)
        state.json     schedule, precision, data set digest, number of classes, format
        manifest.json  size and SHA-256 of each file above

Where an engine shards, each rank has a file of its own instead: generator-00000-of-00002.safetensors, ... A checkpoint
is written under a temporary name, flushed to the disk and renamed by rank 0 when all ranks have written. Nothing in it
can hold code.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from torch import Tensor, nn

from fastgan.dist import ALONE, World, gather_texts, together
from fastgan.errors import CheckpointError, RunFolderError
from fastgan.parallel.pieces import Part, named_tensors, replicated
from fastgan.schedule import Network, ScheduleState
from fastgan.train.checkpoint_files import (
    MANIFEST,
    decoded,
    encoded,
    fingerprint,
    flush_folder,
    read_verified,
    to_json,
    write_flushed,
)
from fastgan.train.roles import NETWORKS
from fastgan.train.state import TrainState
from fastgan.train.step_statistics import diverged

FORMAT = 2
# Format 1 has no pieces.
_READABLE_FORMATS = (1, 2)
STATE = "state.json"


class RunFacts(NamedTuple):
    """What a resumed run must share with the run that it continues, beside the configuration."""

    precision: str
    dataset_digest: str
    num_classes: int


def checkpoints_folder(run_dir: Path) -> Path:
    """Where the checkpoints of a run lie."""
    return run_dir / "checkpoints"


def list_checkpoints(run_dir: Path) -> list[Path]:
    """Complete checkpoints, oldest first. Folders of writers that were interrupted do not count."""
    folder = checkpoints_folder(run_dir)
    paths = [path for path in folder.glob("[0-9]*") if path.name.isdigit() and path.is_dir()]
    return sorted(paths, key=lambda path: int(path.name))


def save_checkpoint(run_dir: Path, state: TrainState, *, facts: RunFacts, keep: int, world: World = ALONE) -> Path:
    """Writes the state to `RUN/checkpoints/IMAGES`, then deletes all but the newest `keep` checkpoints.

    All ranks call it together: each writes what it alone holds, and rank 0 the rest. A rank that fails, or dies, leaves
    no checkpoint behind, and the others fail with it.

    Raises:
        TrainingError: if a tensor is not finite; nothing is written.
        RunFolderError: if the folder cannot be written. Earlier checkpoints are then as they were.
        DistributedError: if that, or any of it, happened to another rank.
    """
    target = checkpoints_folder(run_dir) / f"{state.images_seen:09d}"
    temporary = target.with_name(f".{target.name}.tmp")
    parts = _parts(state)
    with together(world):
        _check_finite(parts, images_seen=state.images_seen)
    with together(world), _explained(target):
        if world.is_main:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
    fingerprints: dict[str, Any] = {}
    with together(world), _explained(target):
        if not temporary.is_dir():
            rule = "the run folder must be on a file system that all machines share"
            raise RunFolderError(f"rank {world.rank} does not see {temporary}, which rank 0 has made; {rule}")
        for group, part in parts.items():
            for name, content in encoded(group, part, world=world).items():
                write_flushed(temporary / name, content)
                fingerprints[name] = fingerprint(content)
    manifest: dict[str, Any] = {}
    for text in gather_texts(world, json.dumps(fingerprints)):
        manifest |= json.loads(text)
    with together(world), _explained(target):
        if world.is_main:
            progress = to_json({"format": FORMAT, "schedule": state.schedule.to_json(), **facts._asdict()})
            _commit(temporary, target, manifest=manifest, progress=progress)
            for old in list_checkpoints(run_dir)[:-keep]:
                shutil.rmtree(old)
    return target


def _commit(temporary: Path, target: Path, *, manifest: Mapping[str, Any], progress: bytes) -> None:
    """Makes a checkpoint of the folder in which all ranks have written their files."""
    for name, expected in manifest.items():
        size = (temporary / name).stat().st_size
        if size != expected["bytes"]:
            raise RunFolderError(f"{temporary / name} has {size} bytes instead of {expected['bytes']}; free space")
    write_flushed(temporary / STATE, progress)
    write_flushed(temporary / MANIFEST, to_json({**manifest, STATE: fingerprint(progress)}))
    flush_folder(temporary)
    if target.exists():
        # The same clock again. The new copy is complete; a crash right here leaves it to be written once more.
        shutil.rmtree(target)
    temporary.rename(target)
    flush_folder(target.parent)


@contextmanager
def _explained(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = f"cannot write checkpoint {target}: {error.strerror}"
        raise RunFolderError(f"{reason}; earlier checkpoints are unharmed, free space and resume") from error


def load_newest_checkpoint(run_dir: Path, *, on_damage: Callable[[str], None]) -> "Checkpoint":
    """The newest checkpoint that is intact; each damaged one is named to `on_damage` and passed over.

    Raises:
        CheckpointError: if there is none.
    """
    paths = list_checkpoints(run_dir)
    if not paths:
        raise CheckpointError(f"{run_dir} holds no checkpoint; start the run again in another folder")
    for path in reversed(paths):
        try:
            return Checkpoint(path)
        except CheckpointError as error:
            on_damage(str(error))
    raise CheckpointError(f"none of the {len(paths)} checkpoints in {run_dir} is intact; start again in another folder")


def set_aside_newer(run_dir: Path, checkpoint: "Checkpoint") -> None:
    """Renames damaged checkpoints newer than `checkpoint` to NAME.damaged, so that they do not count as kept ones.

    Raises:
        RunFolderError: if the folder cannot be written.
    """
    try:
        for path in list_checkpoints(run_dir):
            if int(path.name) > int(checkpoint.path.name):
                aside = path.with_name(f"{path.name}.damaged")
                shutil.rmtree(aside, ignore_errors=True)
                path.rename(aside)
    except OSError as error:
        raise RunFolderError(f"cannot rename damaged checkpoints in {run_dir}: {error.strerror}") from error


class Checkpoint:
    """An intact checkpoint, read into memory.

    Raises:
        CheckpointError: if a file is missing or was changed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        files = read_verified(path)
        try:
            values = json.loads(files[STATE])
            if values["format"] not in _READABLE_FORMATS:
                readable = " and ".join(map(str, _READABLE_FORMATS))
                raise CheckpointError(
                    f"{path} has format {values['format']}, this version of fastgan reads {readable}; "
                    "use the version that wrote it"
                )
            self.schedule = ScheduleState.from_json(values["schedule"])
            self.facts = RunFacts(**{name: values[name] for name in RunFacts._fields})
            self._tensors = decoded(files, path=path)
        except (KeyError, TypeError, ValueError, SafetensorError) as error:
            raise CheckpointError(f"{path} is damaged: {error!r}; use an earlier checkpoint") from error

    def restore_networks(self, networks: Mapping[str, nn.Module]) -> None:
        """Puts the weights of each into the network of its name, before an engine shards it.

        Raises:
            CheckpointError: if a tensor is missing, unknown or of another shape.
        """
        for name, network in networks.items():
            self.restore_network(name, network)

    def restore_progress(self, state: TrainState) -> None:
        """Puts optimizers and schedule into `state`, whose networks were restored before its engines were built.

        Raises:
            CheckpointError: if a tensor is missing, unknown or of another shape.
        """
        for name, (_, engine) in state.trained.items():
            engine.load_state_dict(self._group(f"{name}_optimizer"))
        state.schedule = self.schedule

    def restore_network(self, name: str, network: nn.Module) -> None:
        """Puts the weights of `generator`, `discriminator` or `generator_ema` into `network`.

        Raises:
            CheckpointError: if a tensor is missing, unknown or of another shape.
        """
        try:
            network.load_state_dict(self._group(name))
        except RuntimeError as error:
            differing = _differing_shapes(self._tensors[name], network)
            raise CheckpointError(
                f"{self.path} does not fit this configuration: {name} {differing}; give its networks the sizes in "
                "config.yaml back that they were trained with"
            ) from error

    @property
    def published(self) -> dict[Network, dict[str, Tensor]]:
        """What `Channel.at_hand` was of each network in a run of `split`; empty after other runs."""
        return {name: self._tensors[f"{name}_published"] for name in NETWORKS if f"{name}_published" in self._tensors}

    def _group(self, name: str) -> dict[str, Tensor]:
        if name not in self._tensors:
            raise CheckpointError(f"{self.path} does not fit this configuration: it has no {name}; use its own config")
        return self._tensors[name]


def _differing_shapes(saved: Mapping[str, Tensor], network: nn.Module) -> str:
    """The first tensor that only one side has, or that has another shape on each."""
    own = named_tensors(network)
    for name in sorted(saved.keys() | own.keys()):
        theirs, ours = (list(side[name].shape) if name in side else "absent" for side in (saved, own))
        if theirs != ours:
            return f"{name} is {theirs} there and {ours} here"
    return "has other contents"


def _parts(state: TrainState) -> dict[str, Part]:
    """What this rank has to save, by group."""
    if state.roles is None:
        parts = {"generator_ema": replicated(named_tensors(state.generator_ema))}
    else:
        parts = state.roles.parts(state.generator_ema)
    for name, (network, engine) in state.trained.items():
        parts |= {name: engine.network_part(network), f"{name}_optimizer": engine.optimizer_part()}
    return parts


def _check_finite(parts: Mapping[str, Part], *, images_seen: int) -> None:
    for group, part in parts.items():
        for name, piece in part.pieces.items():
            if not piece.values.isfinite().all():
                raise diverged(f"{group} {name} is not finite", images_seen=images_seen)
