"""One logit per image: both shapes of it give the same in every mode, and all others are refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastgan.nn import Dual
from fastgan.objectives import (
    LOSSES,
    MODES,
    DiscriminatorObjective,
    EnsembleGeneratorObjective,
    GeneratorObjective,
    Opponent,
    PenaltyMode,
    adversarial_loss,
)

REAL, FAKE = torch.randn(2, 3, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
SHAPES: dict[str, Callable[[Tensor], Any]] = {
    "scalar": lambda logits: logits.sum(),
    "patches": lambda logits: logits[:, None].repeat(1, 4),
    "map": lambda logits: logits[:, None, None, None],
    "transposed": lambda logits: logits[None],
    "one less": lambda logits: logits[1:],
}


class Shaped(nn.Module):
    """D(x) = a / 2 |x|^2, in whatever shape `shape` gives its logits."""

    def __init__(self, shape: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
        self.shape = shape

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Any:
        return self.shape(0.5 * self.a * images.square().flatten(1).sum(dim=1))

    def dual(self, images: Dual, labels: Tensor | None = None) -> Dual:
        slopes = self.a * (images.value * images.tangent).flatten(1).sum(dim=1)
        return Dual(self(images.value), self.shape(slopes))


class Copy(nn.Module):
    """A generator whose images are its latents, times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.weight * latents


def judged(judge: nn.Module, mode: str, due: dict[str, float], *, real: Tensor = REAL, fake: Tensor = FAKE) -> Tensor:
    modes = {kind: PenaltyMode(mode) for kind in ("r1", "r2")}
    objective = DiscriminatorObjective(judge, loss=adversarial_loss("non_saturating"), modes=modes)
    return objective(real, fake, penalties=due, noise=lambda: torch.ones_like(real)).loss


def generator_objective(judge: nn.Module, *, is_ensemble: bool, loss: str = "relativistic") -> nn.Module:
    if not is_ensemble:
        return GeneratorObjective(Copy(), discriminator=judge, loss=adversarial_loss(loss))
    opponents = {"a": Opponent(judge, adversarial_loss(loss)), "b": Opponent(judge, adversarial_loss("hinge"))}
    return EnsembleGeneratorObjective(Copy(), opponents=opponents, combination="max")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("due", [{}, {"r1": 1.0}, {"r1": 1.0, "r2": 3.0}], ids=len)
def test_a_column_of_logits_is_a_row(mode: str, due: dict[str, float]) -> None:
    found = []
    for shape in (lambda logits: logits, lambda logits: logits[:, None]):
        judge = Shaped(shape)
        loss = judged(judge, mode, due)
        found.append((loss.detach(), *torch.autograd.grad(loss, judge.a)))
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=0)


@pytest.mark.parametrize("is_ensemble", [False, True])
def test_a_column_of_logits_is_a_row_for_the_generator(is_ensemble: bool) -> None:
    row, column = (
        generator_objective(Shaped(shape), is_ensemble=is_ensemble)(FAKE, real=REAL).loss
        for shape in (lambda logits: logits, lambda logits: logits[:, None])
    )
    torch.testing.assert_close(column, row, rtol=1e-12, atol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_other_shapes_are_refused(shape: str) -> None:
    judge = Shaped(SHAPES[shape])
    rule = r"Shaped returned logits of shape \[.*\] for (\d) images; .* per image, \[\1\] or \[\1, 1\]: take the mean"
    for mode in MODES:
        for due in ({}, {"r1": 1.0}, {"r2": 1.0}, {"r1": 1.0, "r2": 1.0}):
            with pytest.raises(ValueError, match=rule):
                judged(judge, mode, due)
    for is_ensemble in (False, True):
        for loss in ("hinge", "relativistic"):
            with pytest.raises(ValueError, match=rule):
                generator_objective(judge, is_ensemble=is_ensemble, loss=loss)(FAKE, real=REAL)


def test_what_is_no_tensor_is_refused() -> None:
    with pytest.raises(TypeError, match="Shaped returned a tuple; it must return logits"):
        judged(Shaped(lambda logits: (logits, logits)), "double", {})


def test_a_dual_of_another_shape_is_refused() -> None:
    class Sum(Shaped):
        def dual(self, images: Dual, labels: Tensor | None = None) -> Dual:
            return Dual(*(part.sum() for part in super().dual(images)))

    with pytest.raises(ValueError, match=r"Sum returned logits of shape \[\] for 3 images"):
        judged(Sum(lambda logits: logits), "dual", {"r1": 1.0})


@pytest.mark.parametrize("due", [{}, {"r1": 1.0}, {"r1": 1.0, "r2": 1.0}], ids=len)
def test_an_empty_batch_is_refused(due: dict[str, float]) -> None:
    judge = Shaped(lambda logits: logits)
    for mode in MODES:
        for real, fake in ((REAL[:0], FAKE[:0]), (REAL[:0], FAKE), (REAL, FAKE[:0])):
            with pytest.raises(
                ValueError, match=r"images of shape \[0, 1, 2, 2\]: a batch must have at least one image"
            ):
                judged(judge, mode, due, real=real, fake=fake)
    for is_ensemble in (False, True):
        with pytest.raises(ValueError, match="a batch must have at least one image"):
            generator_objective(judge, is_ensemble=is_ensemble)(FAKE[:0], real=REAL)


def test_a_loss_that_compares_needs_as_many_fakes_as_reals() -> None:
    judge, rule = Shaped(lambda logits: logits), "give as many fake images as real ones"
    for name in ("relativistic", "wasserstein"):
        with pytest.raises(ValueError, match=rf"logits of shapes .*: this loss compares sample with sample; {rule}"):
            DiscriminatorObjective(judge, loss=adversarial_loss(name))(REAL, FAKE[:1])
    for is_ensemble in (False, True):
        with pytest.raises(ValueError, match=rule):
            generator_objective(judge, is_ensemble=is_ensemble)(FAKE[:1], real=REAL)


@pytest.mark.parametrize("kinds", [("r1",), ("r2",), ("r1", "r2"), ("zero_centered",)])
def test_noise_of_another_shape_is_refused(kinds: tuple[str, ...]) -> None:
    modes = dict.fromkeys(kinds, PenaltyMode("approximate"))
    objective = DiscriminatorObjective(Shaped(lambda logits: logits), loss=adversarial_loss("hinge"), modes=modes)
    weights = torch.full((3,), 0.5, dtype=torch.float64)
    for shape in ((1,), (1, 1, 2, 2)):
        with pytest.raises(ValueError, match=r"noise made the shape \[1.*\]; it must make .* images, \[3, 1, 2, 2\]"):
            objective(
                REAL,
                FAKE,
                penalties=dict.fromkeys(kinds, 1.0),
                interpolation=weights,
                noise=lambda shape=shape: torch.ones(shape),
            )


@pytest.mark.parametrize("name", LOSSES)
def test_logits_in_half_precision_are_widened(name: str) -> None:
    """And with them all statistics. Squares of these logits do not fit into float16."""
    objective = DiscriminatorObjective(Shaped(lambda logits: logits.half()), loss=adversarial_loss(name))
    output = objective(100 * REAL, 100 * FAKE)
    assert {value.dtype for value in (output.loss, *output.statistics.values())} == {torch.float32}
    assert all(value.isfinite() for value in output.statistics.values())


def test_the_checks_can_be_compiled() -> None:
    objective = DiscriminatorObjective(Shaped(lambda logits: logits[:, None]), loss=adversarial_loss("relativistic"))
    compiled = torch.compile(objective, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(REAL, FAKE).loss, objective(REAL, FAKE).loss)
