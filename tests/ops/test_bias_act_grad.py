"""bias_act_grad against autograd through bias_act, and what is refused."""

import pytest
import torch

from fastgan.ops import ACTIVATIONS, bias_act, bias_act_grad


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("gain", [1.4, -0.6])
def test_it_is_the_gradient_of_bias_act(activation: str, gain: float) -> None:
    z = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    y = bias_act(z, activation=activation, gain=gain, clamp=0.5)
    assert (y.abs() == 0.5).any()
    grad = torch.randn_like(y)
    (expected,) = torch.autograd.grad(y, z, grad)
    saved = (z if activation == "silu" else y).detach()
    got = bias_act_grad(grad, saved, activation=activation, gain=gain, clamp=0.5)
    torch.testing.assert_close(got, expected, rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"grad": torch.zeros(3)}, ValueError, "grad has shape [3]; it must be [N, C, H, W]"),
        (
            {"saved": torch.zeros(1, 2, 3, 5)},
            ValueError,
            "saved is [1, 2, 3, 5] torch.float32 and grad is [1, 2, 3, 4]",
        ),
        ({"saved": torch.zeros(1, 2, 3, 4).half()}, ValueError, "they must be equal in shape and dtype"),
        ({"saved": torch.zeros(1, 2, 3, 4, device="meta")}, ValueError, "saved is on meta and grad on cpu"),
        ({"activation": "rellu"}, ValueError, "activation='rellu' must be one of"),
        ({"clamp": 0.0}, ValueError, "clamp=0.0 must be positive"),
        ({"impl": "tritn"}, ValueError, "impl='tritn' must be one of"),
    ],
    ids=str,
)
def test_bad_arguments_name_themselves(change: dict[str, object], error: type[Exception], message: str) -> None:
    good: dict[str, object] = {"grad": torch.zeros(1, 2, 3, 4), "saved": torch.zeros(1, 2, 3, 4)}
    with pytest.raises(error) as caught:
        bias_act_grad(**(good | change))  # type: ignore[arg-type]
    assert str(caught.value).startswith("bias_act_grad: ")
    assert message in str(caught.value)
