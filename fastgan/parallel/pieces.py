"""What a rank holds of named tensors: whole ones, or ranges of flattened ones; all ranks' pieces make the whole.

A range of a flattened tensor is what every way of sharding comes to, rows of a matrix as well as an equal share of all
numbers, so that a state written by one engine can be read by any other.
"""

from collections.abc import Iterable, Mapping
from math import prod
from typing import NamedTuple

import torch
import torch.distributed as torch_dist
from torch import Tensor, nn

from fastgan.errors import CheckpointError


class Piece(NamedTuple):
    """The numbers from `start` on of a tensor of shape `shape`, flattened: as many as `values`, [M], holds."""

    shape: tuple[int, ...]
    start: int
    values: Tensor


class Part(NamedTuple):
    """One rank's pieces by the name of the tensor.

    is_sharded: whether other ranks may hold further ones.
    is_elsewhere: whether another rank gives all of them, so that there are none here.
    """

    pieces: dict[str, Piece]
    is_sharded: bool
    is_elsewhere: bool = False


def elsewhere() -> Part:
    """Of what another rank saves."""
    return Part({}, is_sharded=False, is_elsewhere=True)


def named_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, detached, as this rank holds them."""
    return {name: value.detach() for name, value in (*network.named_parameters(), *network.named_buffers())}


def given(tensors: Mapping[str, Tensor]) -> Part:
    """Tensors that this rank saves for all that hold them."""
    return Part({name: whole(value) for name, value in tensors.items()}, is_sharded=False)


def replicated(tensors: Mapping[str, Tensor], group: torch_dist.ProcessGroup | None = None) -> Part:
    """Tensors that every rank of `group`, None for all, holds whole: the first of them gives them."""
    if torch_dist.is_initialized() and torch_dist.get_rank(group) > 0:
        return elsewhere()
    return given(tensors)


def whole(value: Tensor) -> Piece:
    """All of a tensor, in the order of its indices whatever its memory format."""
    return Piece(tuple(value.shape), 0, value.detach().contiguous().reshape(-1))


def assembled(pieces: Iterable[tuple[str, Piece]]) -> dict[str, Tensor]:
    """Whole tensors from the pieces of all ranks.

    Raises:
        CheckpointError: if the pieces of a tensor overlap or leave gaps, or disagree about its shape.
    """
    by_name: dict[str, list[Piece]] = {}
    for name, piece in pieces:
        by_name.setdefault(name, []).append(piece)
    return {name: _join(name, sorted(found, key=lambda piece: piece.start)) for name, found in by_name.items()}


def _join(name: str, pieces: list[Piece]) -> Tensor:
    shape, end = pieces[0].shape, 0
    for piece in pieces:
        if piece.shape != shape or piece.start != end:
            break
        end += piece.values.numel()
    else:
        if end == prod(shape):
            joined = pieces[0].values if len(pieces) == 1 else torch.cat([piece.values for piece in pieces])
            return joined.reshape(shape)
    raise CheckpointError(
        f"the pieces of {name} do not make a tensor of shape {list(shape)}; use an earlier checkpoint"
    )
