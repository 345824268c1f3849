"""The files of a checkpoint: tensors as safetensors, whole or in the pieces of one rank, and the manifest over all.

torch.distributed.checkpoint is not used: its ranks exchange pickled plans, whichever writer is chosen, and the default
writer's index is a pickle; its writer of safetensors has no place for a hash of every file; and its pieces are boxes of
rows and columns, which ZeRO's equal shares of all numbers are not. A rank writes its own pieces here, too, and nothing
is gathered.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from fastgan.dist import World
from fastgan.errors import CheckpointError
from fastgan.parallel.pieces import Part, Piece, assembled, whole

MANIFEST = "manifest.json"
_SUFFIX = ".safetensors"
# generator.safetensors, or one rank's pieces: generator-00003-of-00008.safetensors.
_TENSOR_FILE = re.compile(r"(?P<group>.+?)(-\d{5}-of-\d{5})?\.safetensors")


def encoded(group: str, part: Part, *, world: World) -> dict[str, bytes]:
    """Name and content of the file with this rank's part of `group`; empty if another rank writes it all."""
    if part.is_elsewhere:
        return {}
    # Copies: some are views of one tensor, or one and the same, which safetensors does not take.
    values = {name: piece.values.to("cpu", copy=True) for name, piece in part.pieces.items()}
    if not part.is_sharded or world.num_ranks == 1:
        # One rank has all: tensors in their shapes, for whoever reads the file.
        return {f"{group}{_SUFFIX}": save({name: values[name].view(part.pieces[name].shape) for name in values})}
    places = {name: {"shape": piece.shape, "start": piece.start} for name, piece in part.pieces.items()}
    name = f"{group}-{world.rank:05d}-of-{world.num_ranks:05d}{_SUFFIX}"
    return {name: save(values, metadata={"pieces": json.dumps(places)})}


def decoded(files: Mapping[str, bytes], *, path: Path) -> dict[str, dict[str, Tensor]]:
    """Whole tensors by group and name from the files of all ranks.

    Raises:
        CheckpointError: naming `path`, if pieces are missing.
        SafetensorError, KeyError, ValueError: if a file is not what `encoded` makes.
    """
    groups: dict[str, list[tuple[str, Piece]]] = {}
    for file, content in files.items():
        if match := _TENSOR_FILE.fullmatch(file):
            groups.setdefault(match["group"], []).extend(_pieces(content))
    try:
        return {group: assembled(pieces) for group, pieces in groups.items()}
    except CheckpointError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error


def _pieces(content: bytes) -> Iterator[tuple[str, Piece]]:
    tensors = load(content)
    # Eight bytes give the length of the JSON that follows, which safetensors does not hand out.
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    places = json.loads(header.get("__metadata__", {}).get("pieces", "null"))
    for name, values in tensors.items():
        if places is None:
            yield name, whole(values)
        else:
            yield name, Piece(tuple(places[name]["shape"]), places[name]["start"], values)


def to_json(values: Mapping[str, Any]) -> bytes:
    """Readable JSON."""
    return (json.dumps(values, indent=2) + "\n").encode()


def fingerprint(content: bytes) -> dict[str, Any]:
    """What the manifest says of a file: its size and SHA-256."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def write_flushed(path: Path, content: bytes) -> None:
    """Writes a file so that it survives a power failure."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def flush_folder(path: Path) -> None:
    """Makes the names in the folder survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_verified(path: Path) -> dict[str, bytes]:
    """The files of the checkpoint `path`, each of them with the size and hash that the manifest states.

    Raises:
        CheckpointError: if one is missing or was changed.
    """
    files: dict[str, bytes] = {}
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        for name, expected in manifest.items():
            files[name] = (path / name).read_bytes()
            if fingerprint(files[name]) != expected:
                raise CheckpointError(f"{path / name} is damaged: its content is not what was saved")
    except OSError as error:
        raise CheckpointError(f"{path} is damaged: {error.filename}: {error.strerror}") from error
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"{path / MANIFEST} is damaged: {error}") from error
    return files
