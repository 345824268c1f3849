"""A network that this rank only reads: no gradients, no optimizer; its weights come from other ranks."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from fractions import Fraction
from typing import Any, NoReturn

from torch import Tensor, nn

from fastgan.parallel.pieces import Part, elsewhere


class ReplicaEngine:
    """Stands in the place of an engine on ranks that do not train the network.

    Args:
        network: has its weights; from now on none of them takes a gradient.
    """

    keeps_graph = True

    def __init__(self, network: nn.Module) -> None:
        network.requires_grad_(False)

    def __call__(self, *args: Any, is_last: bool = True, **kwargs: Any) -> NoReturn:
        """Never happens."""
        raise _read_only()

    def backward(self, loss: Tensor, *, weight: Fraction, is_last: bool) -> None:
        """Never happens."""
        raise _read_only()

    def step(self) -> None:
        """Never happens."""
        raise _read_only()

    def discard(self) -> None:
        """Never happens."""
        raise _read_only()

    def gradient_norm(self) -> Tensor:
        """Never happens."""
        raise _read_only()

    def gathered(self) -> AbstractContextManager[None]:
        """The weights are whole."""
        return nullcontext()

    def network_part(self, network: nn.Module) -> Part:
        """The ranks that train the network save it."""
        del network
        return elsewhere()

    def optimizer_part(self) -> Part:
        """The ranks that train the network save it."""
        return elsewhere()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """There is no optimizer."""
        del state


def _read_only() -> AssertionError:
    return AssertionError("this rank only reads the network: a plan must not update it here")
