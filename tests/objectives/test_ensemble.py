"""The generator's loss against several discriminators, against values worked out from the single losses."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fastgan.objectives import EnsembleGeneratorObjective, Opponent, adversarial_loss

IMAGES, REAL = torch.tensor([[0.5], [-2.0], [1.5]]), torch.tensor([[1.0], [0.0], [-1.0]])


class Given(nn.Module):
    """A generator whose images are a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.images = nn.Parameter(IMAGES.clone())

    def forward(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        return self.images[: len(latents)]


def linear(slope: float, offset: float) -> Callable[[Tensor, Tensor | None], Tensor]:
    return lambda images, labels: slope * images[:, 0] + offset


OPPONENTS = {
    "a": Opponent(linear(1.0, 0.0), adversarial_loss("hinge")),
    "b": Opponent(linear(-2.0, 1.0), adversarial_loss("relativistic")),
}
# Hinge: -D(x). Relativistic: softplus(D(real) - D(fake)).
TERMS = {
    "a": -IMAGES[:, 0],
    "b": nn.functional.softplus((-2 * REAL[:, 0] + 1) - (-2 * IMAGES[:, 0] + 1)),
}


def objective(combination: str) -> EnsembleGeneratorObjective:
    return EnsembleGeneratorObjective(Given(), opponents=OPPONENTS, combination=combination)


@pytest.mark.parametrize(
    ("combination", "drawn", "expected"),
    [
        ("mean", None, (TERMS["a"] + TERMS["b"]) / 2),
        ("max", None, torch.maximum(TERMS["a"], TERMS["b"])),
        ("random", ["b"], TERMS["b"]),
        ("random", ["b", "a"], (TERMS["a"] + TERMS["b"]) / 2),
    ],
)
def test_the_combined_loss(combination: str, drawn: list[str] | None, expected: Tensor) -> None:
    output = objective(combination)(torch.zeros(3, 1), real=REAL, drawn=drawn)
    torch.testing.assert_close(output.loss, expected.mean())
    reported = {"loss_generator": expected.mean()}
    reported |= {f"loss_generator/{name}": TERMS[name].mean() for name in drawn or ("a", "b")}
    assert output.statistics.keys() == reported.keys()
    for name, value in reported.items():
        torch.testing.assert_close(output.statistics[name], value)


def test_max_improves_each_image_against_the_hardest_discriminator() -> None:
    ensemble = objective("max")
    ensemble(torch.zeros(3, 1), real=REAL).loss.backward()
    images = ensemble.generator.images
    hardest_is_a = TERMS["a"] > TERMS["b"]
    assert set(hardest_is_a.tolist()) == {True, False}
    # d/dx of -x and of softplus(c + 2x), whose derivative is 2 sigmoid.
    slopes = torch.where(hardest_is_a, -1.0, 2 * torch.sigmoid(TERMS["b"].expm1().log()))
    torch.testing.assert_close(images.grad[:, 0], slopes / 3)  # type: ignore[index]


def test_a_discriminator_that_is_not_drawn_is_not_asked() -> None:
    def fail(images: Tensor, labels: Tensor | None) -> Tensor:
        raise AssertionError

    opponents = OPPONENTS | {"c": Opponent(fail, adversarial_loss("hinge"))}
    EnsembleGeneratorObjective(Given(), opponents=opponents, combination="random")(torch.zeros(2, 1), drawn=["a"])


def test_only_the_generator_is_registered() -> None:
    judge = nn.Linear(1, 1)
    ensemble = EnsembleGeneratorObjective(
        Given(), opponents={"a": Opponent(judge, adversarial_loss("hinge"))}, combination="mean"
    )
    assert [name for name, _ in ensemble.named_parameters()] == ["generator.images"]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="combination='maximum' must be one of mean, max, random"):
        objective("maximum")
    with pytest.raises(ValueError, match="opponents is empty"):
        EnsembleGeneratorObjective(Given(), opponents={}, combination="mean")
    with pytest.raises(ValueError, match="names none of a, b"):
        objective("random")(torch.zeros(1, 1), drawn=["c"])
    with pytest.raises(ValueError, match=r"drawn=\['a', 'zz'\]: 'zz' names none of a, b"):
        objective("random")(torch.zeros(1, 1), drawn=["a", "zz"])
    with pytest.raises(ValueError, match=r"drawn=\[\] names none of a, b"):
        objective("random")(torch.zeros(1, 1), drawn=[])
    with pytest.raises(TypeError, match=r"drawn='ab' must be a collection of names, such as \['ab'\]"):
        objective("random")(torch.zeros(1, 1), drawn="ab")
    opponents = {"a": Opponent(linear(1.0, 0.0), "hinge")}  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"loss='hinge' must be an AdversarialLoss"):
        EnsembleGeneratorObjective(Given(), opponents=opponents, combination="mean")
    with pytest.raises(ValueError, match="real is None; Relativistic compares"):
        objective("mean")(torch.zeros(1, 1))
