"""Spectral normalisation of all layers of a network as one group.

Shape legend: L layers; layer i's matrix is [R_i, K_i].
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from fastgan.errors import TrainingError
from fastgan.ops import NonFiniteMatrixError, power_iteration_, spectral_norm

# After a new weight, so many steps bring u and v close enough; afterwards one step per optimizer step keeps up.
_INITIAL_ITERATIONS = 15

_HALF = (torch.float16, torch.bfloat16)


class HasMatrix(Protocol):
    """A layer whose weight can be read as a matrix."""

    def matrix(self) -> Tensor:
        """[R, K], differentiable in the layer's weight."""
        ...


class SpectralNorm(nn.Module):
    """u, v and 1 / sigma of every layer of one network.

    The layers' weights stay as they are: `forward` returns 1 / sigma for each layer, which the network hands to the
    layer as its output scale. `step` runs the power iteration; call it once after each optimizer step of the
    network, not in each forward pass, so that all passes of an update see one normalisation, and u and v depend on
    the number of updates alone (the same on every rank). u and v are buffers: saved, and copied to an EMA.

    Args:
        layers: the layers to normalise, which must live elsewhere in the network; they are not registered here.
        num_iterations: power iterations per `step`.
    Raises:
        ValueError, TypeError: naming the argument or the layer, and the rule.
    Source: Miyato et al. 2018, arXiv:1802.05957.
    """

    def __init__(self, layers: Sequence[HasMatrix], *, num_iterations: int = 1) -> None:
        super().__init__()
        if not layers:
            raise ValueError("SpectralNorm: layers is empty; it needs at least one layer")
        if not isinstance(num_iterations, int) or num_iterations < 1:
            raise ValueError(f"SpectralNorm: num_iterations={num_iterations} must be a whole number, at least 1")
        for index, layer in enumerate(layers):
            if not callable(getattr(layer, "matrix", None)):
                got = f"SpectralNorm: layer {index} is a {type(layer).__name__} without a method matrix"
                raise TypeError(f"{got}; take a layer of fastgan.nn, or give it one that returns the weight as [R, K]")
        self.num_layers, self.num_iterations = len(layers), num_iterations
        for index, layer in enumerate(layers):
            rows, columns = layer.matrix().shape
            self.register_buffer(f"u{index}", _unit_vector(rows))
            self.register_buffer(f"v{index}", _unit_vector(columns))
        self._iterate(layers, _INITIAL_ITERATIONS)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "SpectralNorm":
        """Whatever a network's weights become, the vectors stay in float32 or float64, as the ops want them."""

        def keep_precision(vector: Tensor) -> Tensor:
            moved = fn(vector)
            return vector.to(moved.device) if moved.dtype in _HALF else moved

        done: SpectralNorm = super()._apply(keep_precision, recurse)  # type: ignore[no-untyped-call]
        return done

    def _vectors(self, side: str) -> list[Tensor]:
        return [self.get_buffer(f"{side}{index}") for index in range(self.num_layers)]

    def _iterate(self, layers: Sequence[HasMatrix], num_iterations: int) -> None:
        matrices = [layer.matrix().detach() for layer in layers]
        power_iteration_(matrices, self._vectors("u"), self._vectors("v"), num_iterations=num_iterations)

    def step(self, layers: Sequence[HasMatrix]) -> None:
        """One power iteration (`num_iterations`) of every layer, in place; `layers` in the order of construction.

        In eval mode nothing happens: the vectors are frozen.

        Raises:
            TrainingError: on a CPU, if a weight is not finite. A GPU would have to wait for that; there sigma is NaN.
        """
        if not self.training:
            return
        try:
            self._iterate(layers, self.num_iterations)
        except NonFiniteMatrixError as error:
            weight = f"the weight of the spectrally normalised layer {error.index} ({layers[error.index]})"
            raise TrainingError(
                f"{weight} holds numbers that are not finite after an update; lower the learning rate"
            ) from error

    def forward(self, layers: Sequence[HasMatrix]) -> tuple[Tensor, ...]:
        """L scalars 1 / sigma_i, differentiable in the layers' weights; `layers` in the order of construction."""
        sigma = spectral_norm([layer.matrix() for layer in layers], self._vectors("u"), self._vectors("v"))
        return tuple(sigma.reciprocal().unbind())


def _unit_vector(size: int) -> Tensor:
    vector = torch.randn(size)
    unit: Tensor = vector / torch.linalg.vector_norm(vector).clamp_min(1e-12)
    return unit


def from_parametrizations(
    state: Mapping[str, Tensor], layers: Sequence[str], *, group: str = "spectral_norm"
) -> dict[str, Tensor]:
    """The state dict of a network with a `SpectralNorm` group, from one with torch's parametrizations.

    Args:
        state: of layers under `torch.nn.utils.parametrizations.spectral_norm`, and of anything else, which is kept.
        layers: names of the normalised layers, the same in both networks, in the group's order; "" for a network that
            is itself the layer.
        group: name of the group.
    Returns:
        The weights in the dtype that they have in `state`, the group's vectors in float32 at least.
    Raises:
        ValueError: if a layer of that name is not parametrized in `state`.
    """
    made = dict(state)
    for index, name in enumerate(layers):
        prefix = f"{name}." if name else ""
        keys = [f"{prefix}parametrizations.weight.{key}" for key in ("original", "0._u", "0._v")]
        for key in keys:
            if key not in made:
                raise ValueError(f"from_parametrizations: layer {name!r} is not in the state; it needs {key}")
        weight, u, v = (made.pop(key) for key in keys)
        if weight.dim() == 4:
            # torch's columns are (channel, row, column) of the kernel, ours (row, column, channel).
            v = v.view(-1, *weight.shape[2:]).permute(1, 2, 0).flatten()
        u, v = (vector.float() if vector.dtype in _HALF else vector for vector in (u, v))
        made |= {f"{prefix}weight": weight, f"{group}.u{index}": u, f"{group}.v{index}": v}
    return made


class SpectrallyNormalized(nn.Module):
    """Base of networks whose layers share one `SpectralNorm` group, or have none."""

    spectral_norm: SpectralNorm | None

    def normalized_layers(self) -> list[HasMatrix]:
        """The layers that the group normalises, in a fixed order."""
        raise NotImplementedError

    def scales(self) -> Iterator[Tensor | None]:
        """1 / sigma of each of `normalized_layers`, in their order; None for each where there is no group."""
        layers = self.normalized_layers()
        if self.spectral_norm is None:
            return iter([None] * len(layers))
        return iter(self.spectral_norm(layers))

    def step_spectral_norm(self) -> None:
        """Follows the weights by one power iteration: call after each optimizer step of this network."""
        if self.spectral_norm is not None:
            self.spectral_norm.step(self.normalized_layers())
