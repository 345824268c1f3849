"""Gradient penalties against plain PyTorch: `python -m benchmarks.bench_gradient_penalty`.

The op by itself, |g_n|^2 for each sample, and a discriminator's whole loss with penalties: logits of real and fake
images, the penalties of their gradients, and a backward pass as the training step makes it.

Shape legend: N batch, C channels, R resolution.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.baselines.usual_networks import UsualDiscriminator
from benchmarks.baselines.usual_ops import usual_gradient_penalty
from benchmarks.baselines.usual_penalty import usual_discriminator_loss
from benchmarks.cuda_graph import graphed
from benchmarks.harness import Case, Inputs, Provider, Run
from benchmarks.machine import DTYPES
from benchmarks.op_cases import DIRECTIONS, FORWARD, op_providers, random_tensor, run_of
from benchmarks.runner import Options, main_of
from benchmarks.train_step import measured_config
from fastgan.models import DCGANDiscriminator
from fastgan.objectives import DiscriminatorObjective, PenaltyMode, adversarial_loss
from fastgan.ops import gradient_penalty
from fastgan.train.build import build_networks
from fastgan.train.config import RunConfig

# (N, C, R) of the images.
GPU_SIZES = ((64, 3, 64), (16, 3, 256), (4, 3, 1024))
CPU_SIZES = ((64, 3, 64),)
QUICK_SIZES = ((16, 1, 32),)
KINDS = (("r1",), ("r1", "r2"), ("wgan_gp",))
EXACT = ("double", "dual")
ESTIMATED = ("approximate",)
_TITLES = {"r1": "R1", "r2": "R2", "wgan_gp": "WGAN-GP"}
_WEIGHT = 10.0
# In image units: large enough for the difference of two logits in float32, small enough for its curvature.
_SIGMA = 0.01
_ERROR_FACTOR = 8.0
_ESTIMATE_TOLERANCE = 0.01


def cases(options: Options) -> Iterator[Case]:
    """Whole losses first: the op is a small part of them."""
    for preset in ("digits",) if options.is_quick else ("digits", "dcgan-64"):
        config = measured_config(preset, options)
        for kinds in KINDS[:1] if options.is_quick else KINDS:
            yield penalty_case(config, kinds, options, modes=EXACT)
        yield penalty_case(config, ("r1",), options, modes=ESTIMATED)
    sizes = GPU_SIZES if options.device.type == "cuda" else CPU_SIZES
    for size in QUICK_SIZES if options.is_quick else sizes:
        for direction in DIRECTIONS:
            yield op_case(size, direction, options)


def op_case(size: tuple[int, int, int], direction: str, options: Options) -> Case:
    """The squared norm of each sample, and its gradient."""
    batch, channels, resolution = size
    shape = (batch, channels, resolution, resolution)

    def make_inputs(seed: int) -> Inputs:
        facts = {"dtype": torch.float32, "device": options.device}
        cotangent = random_tensor(batch, seed=2 * seed + 1, requires_grad=False, **facts)
        return random_tensor(*shape, seed=2 * seed, **facts), cotangent

    num_numbers = batch * channels * resolution**2
    return Case(
        benchmark="gradient_penalty",
        name=f"N{batch} {channels} channels, {resolution} px, {direction}",
        device=options.device,
        dtype="fp32",
        make_inputs=make_inputs,
        exact=run_of(usual_gradient_penalty, direction),
        providers=op_providers(
            "gradient_penalty", gradient_penalty, usual_gradient_penalty, direction, is_quick=options.is_quick
        ),
        num_bytes=num_numbers * (1 if direction == FORWARD else 3) * 4,
        num_flops=num_numbers * (2 if direction == FORWARD else 3),
        num_items=batch,
        item="images",
    )


def penalty_case(config: RunConfig, kinds: Sequence[str], options: Options, *, modes: Sequence[str]) -> Case:
    """The gradient of the discriminator's loss with penalties, at equal spectral-norm vectors.

    Args:
        kinds: the penalties that are due.
        modes: how fastgan computes them. `approximate` is checked by its value alone, and with the noise for which it
            is the gradient's norm: its derivative also follows the kinks of a leaky ReLU, which the exact modes do not
            see.
    """
    device, batch, num_checked = options.device, config.batch_images, 1 if modes == ESTIMATED else None

    def exact(*inputs: Tensor) -> Sequence[Tensor]:
        network = build_networks(config, dtype=torch.float64, device=device)[1].double()
        return PenalisedLoss(network, config, kinds, mode="double")(*inputs)[:num_checked]

    providers = list(_providers(config, kinds, device, modes=modes, num_checked=num_checked))
    if device.type == "cuda":
        providers += [graphed(provider) for provider in providers]
    title = " and ".join(_TITLES[kind] for kind in kinds)
    return Case(
        benchmark="gradient_penalty",
        name=f"{title} of {config.name}'s discriminator, batch {batch}" + (", estimated" if modes == ESTIMATED else ""),
        device=device,
        dtype="fp32",
        make_inputs=lambda seed: _images(config, device, seed=seed),
        exact=exact,
        providers=tuple(providers),
        num_items=batch,
        item="images",
        error_factor=_ERROR_FACTOR,
        tolerance=(lambda dtype: _ESTIMATE_TOLERANCE) if modes == ESTIMATED else None,
    )


def _images(config: RunConfig, device: torch.device, *, seed: int) -> Inputs:
    """Real and fake images [N, C, R, R], and where between them a penalty looks, [N]."""
    shape = config.batch_images, config.data.channels, config.data.resolution, config.data.resolution
    facts = {"dtype": torch.float32, "device": device, "requires_grad": False}
    interpolation = random_tensor(config.batch_images, seed=3 * seed + 2, **facts).sigmoid()
    return *(random_tensor(*shape, seed=3 * seed + i, **facts) for i in range(2)), interpolation


def _providers(
    config: RunConfig, kinds: Sequence[str], device: torch.device, *, modes: Sequence[str], num_checked: int | None
) -> Iterator[Provider]:
    """The usual code, then fastgan by mode and number format; of the outputs the first `num_checked` are compared."""
    yield Provider(
        "usual",
        build=lambda: _usual_run(config, kinds, device),
        check=lambda run, inputs: run(*inputs)[:num_checked],
    )
    for mode in modes:
        for precision in ("fp32", "bf16") if device.type == "cuda" else ("fp32",):
            network = partial(build_networks, config, dtype=DTYPES[precision], device=device)
            yield Provider(
                f"fastgan {mode} {precision}",
                build=lambda mode=mode, network=network: PenalisedLoss(network()[1], config, kinds, mode=mode),
                check=lambda run, inputs: run.checked(*inputs)[:num_checked],
                dtype=precision,
            )


class PenalisedLoss:
    """From images to the discriminator's loss with penalties and its gradients, layer by layer, by fastgan."""

    def __init__(self, network: DCGANDiscriminator, config: RunConfig, kinds: Sequence[str], *, mode: str) -> None:
        how = PenaltyMode(mode, sigma=_SIGMA)
        loss = adversarial_loss(config.objective.loss)
        self.objective = DiscriminatorObjective(network, loss=loss, modes=dict.fromkeys(kinds, how))
        self.is_estimate = mode == "approximate"
        self.due = dict.fromkeys(kinds, _WEIGHT)
        self.parameters = list(network.parameters())

    def __call__(self, real: Tensor, fake: Tensor, interpolation: Tensor) -> Sequence[Tensor]:
        noise = torch.randn_like(real) if self.is_estimate else None
        return self._with_noise(real, fake, interpolation, noise)

    def checked(self, real: Tensor, fake: Tensor, interpolation: Tensor) -> Sequence[Tensor]:
        """The same; an estimate looks along the gradient itself, where the slope is the gradient's norm."""
        noise = self._direction(real) if self.is_estimate else None
        return self._with_noise(real, fake, interpolation, noise)

    def _with_noise(self, real: Tensor, fake: Tensor, interpolation: Tensor, noise: Tensor | None) -> Sequence[Tensor]:
        make_noise = None if noise is None else lambda: noise
        output = self.objective(real, fake, penalties=self.due, interpolation=interpolation, noise=make_noise)
        output.loss.backward(inputs=self.parameters)  # as fastgan's engines do
        return (output.loss, *_take_gradients(self.parameters))

    def _direction(self, images: Tensor) -> Tensor:
        images = images.detach().requires_grad_()
        (gradients,) = torch.autograd.grad(self.objective.discriminator(images).sum(), images)
        return F.normalize(gradients.flatten(1), dim=1).view_as(images)


def _usual_run(config: RunConfig, kinds: Sequence[str], device: torch.device) -> Run:
    """The same as it is usually written."""
    network = UsualDiscriminator(build_networks(config, device=device)[1]).eval()
    loss, due = adversarial_loss(config.objective.loss), dict.fromkeys(kinds, _WEIGHT)
    parameters = list(network.parameters())

    def run(real: Tensor, fake: Tensor, interpolation: Tensor) -> Sequence[Tensor]:
        total = usual_discriminator_loss(network, loss, real, fake, due=due, interpolation=interpolation)
        total.backward()
        return (total, *_take_gradients(parameters))

    return run


def _take_gradients(parameters: Sequence[Tensor]) -> Sequence[Tensor]:
    """The gradients of the convolutions' weights, which are compared; none is left behind."""
    taken = [parameter.grad for parameter in parameters if parameter.dim() == 4]
    for parameter in parameters:
        parameter.grad = None
    return [gradient for gradient in taken if gradient is not None]


if __name__ == "__main__":
    sys.exit(main_of("gradient_penalty", cases, description=__doc__))
