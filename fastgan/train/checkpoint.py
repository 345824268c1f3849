"""Checkpoints: a folder of safetensors and JSON that is either complete or absent.

    RUN/checkpoints/000102400/
        generator.safetensors  discriminator.safetensors  generator_ema.safetensors
        generator_optimizer.safetensors  discriminator_optimizer.safetensors
        state.json     schedule, precision, data set digest, number of classes, format
        manifest.json  size and SHA-256 of each file above

A checkpoint is written under a temporary name, flushed to the disk and renamed. Nothing in it can hold code.
"""

import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from fastgan.dist import ALONE, World
from fastgan.errors import CheckpointError, RunFolderError
from fastgan.schedule import ScheduleState
from fastgan.train.state import TrainState
from fastgan.train.step_statistics import diverged

FORMAT = 1


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

    All ranks call it together, since engines may have to gather their shards; rank 0 writes.

    Raises:
        TrainingError: if a tensor is not finite; nothing is written.
        RunFolderError: if the folder cannot be written. Earlier checkpoints are then as they were.
    """
    target = checkpoints_folder(run_dir) / f"{state.images_seen:09d}"
    temporary = target.with_name(f".{target.name}.tmp")
    tensors = _tensors(state, copies=world.is_main)
    if not world.is_main:
        return target
    _check_finite(tensors, images_seen=state.images_seen)
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        files = {f"{name}.safetensors": save(group) for name, group in tensors.items()}
        files["state.json"] = _json({"format": FORMAT, "schedule": state.schedule.to_json(), **facts._asdict()})
        files["manifest.json"] = _json({name: _fingerprint(content) for name, content in files.items()})
        for name, content in files.items():
            _write(temporary / name, content)
        _flush_folder(temporary)
        if target.exists():
            # The same clock again. The new copy is complete; a crash right here leaves it to be written once more.
            shutil.rmtree(target)
        temporary.rename(target)
        _flush_folder(target.parent)
        for old in list_checkpoints(run_dir)[:-keep]:
            shutil.rmtree(old)
    except OSError as error:
        reason = f"cannot write checkpoint {target}: {error.strerror}"
        raise RunFolderError(f"{reason}; earlier checkpoints are unharmed, free space and resume") from error
    return target


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
        files = _read_verified(path)
        try:
            values = json.loads(files["state.json"])
            if values["format"] != FORMAT:
                found = f"{path} has format {values['format']}"
                raise CheckpointError(
                    f"{found}, this version of fastgan reads format {FORMAT}; use the version that wrote it"
                )
            self.schedule = ScheduleState.from_json(values["schedule"])
            self.facts = RunFacts(**{name: values[name] for name in RunFacts._fields})
            names = [name.removesuffix(".safetensors") for name in files if name.endswith(".safetensors")]
            self._tensors = {name: load(files[f"{name}.safetensors"]) for name in names}
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

    def _group(self, name: str) -> dict[str, Tensor]:
        if name not in self._tensors:
            raise CheckpointError(f"{self.path} does not fit this configuration: it has no {name}; use its own config")
        return self._tensors[name]


def _differing_shapes(saved: Mapping[str, Tensor], network: nn.Module) -> str:
    """The first tensor that only one side has, or that has another shape on each."""
    own = network_tensors(network)
    for name in sorted(saved.keys() | own.keys()):
        theirs, ours = (list(side[name].shape) if name in side else "absent" for side in (saved, own))
        if theirs != ours:
            return f"{name} is {theirs} there and {ours} here"
    return "has other contents"


def _tensors(state: TrainState, *, copies: bool) -> dict[str, dict[str, Tensor]]:
    """All tensors of a checkpoint on the CPU. With `copies` false only helps others to gather theirs, and is empty."""
    groups: dict[str, dict[str, Tensor]] = {}
    for name, (network, engine) in state.trained.items():
        with engine.gathered():
            groups[name] = _to_cpu(network_tensors(network)) if copies else {}
        optimizer = engine.state_dict()
        groups[f"{name}_optimizer"] = _to_cpu(optimizer) if copies else {}
    groups["generator_ema"] = _to_cpu(network_tensors(state.generator_ema)) if copies else {}
    return groups


def network_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, detached; `state_dict` of a sharded network would be its shards."""
    tensors = itertools.chain(network.named_parameters(), network.named_buffers())
    return {name: value.detach() for name, value in tensors}


def _to_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # Copies, since gathered weights are freed. safetensors stores contiguous tensors only; loading copies into the
    # network's own memory format.
    return {name: value.detach().clone().cpu().contiguous() for name, value in tensors.items()}


def _check_finite(groups: Mapping[str, Mapping[str, Tensor]], *, images_seen: int) -> None:
    for group, tensors in groups.items():
        for name, value in tensors.items():
            if not value.isfinite().all():
                raise diverged(f"{group} {name} is not finite", images_seen=images_seen)


def _json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=2) + "\n").encode()


def _fingerprint(content: bytes) -> dict[str, Any]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(path: Path) -> None:
    """Makes the names in the folder survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_verified(path: Path) -> dict[str, bytes]:
    """The files of a checkpoint, each of them with the size and hash that the manifest states."""
    files: dict[str, bytes] = {}
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
        for name, expected in manifest.items():
            files[name] = (path / name).read_bytes()
            if _fingerprint(files[name]) != expected:
                raise CheckpointError(f"{path / name} is damaged: its content is not what was saved")
    except OSError as error:
        raise CheckpointError(f"{path} is damaged: {error.filename}: {error.strerror}") from error
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"{path / 'manifest.json'} is damaged: {error}") from error
    return files
