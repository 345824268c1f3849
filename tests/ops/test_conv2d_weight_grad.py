"""conv2d_weight_grad against torch.nn.grad.conv2d_weight, its derivatives, and what is refused."""

import pytest
import torch

from fastgan.ops import conv2d_weight_grad

# (x, weight, stride, padding, dilation, groups)
CASES = [
    ((2, 3, 5, 4), (6, 3, 4, 4), 2, 1, 1, 1),
    ((1, 4, 7, 6), (6, 2, 3, 3), 1, 0, 1, 2),
    ((1, 2, 9, 9), (3, 2, 3, 2), (3, 2), (2, 1), (2, 1), 1),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_derivatives(case) -> None:  # type: ignore[no-untyped-def]
    x_size, weight_size, *sizes = case
    x = torch.randn(x_size, dtype=torch.float64, requires_grad=True)
    weight = torch.zeros(weight_size, dtype=torch.float64, requires_grad=True)
    y = torch.conv2d(x, weight, None, *sizes)
    grad = torch.randn_like(y).requires_grad_()
    (expected,) = torch.autograd.grad(y, weight, grad, retain_graph=True)
    torch.testing.assert_close(conv2d_weight_grad(x, weight_size, grad, *sizes), expected)
    assert torch.autograd.gradcheck(lambda x, g: conv2d_weight_grad(x, weight_size, g, *sizes), (x, grad))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": torch.zeros(4, 6, 6)}, ValueError, "x has shape [4, 6, 6]; it must be [N, C, H, W]"),
        ({"grad": torch.zeros(2, 3, 4)}, ValueError, "grad has shape [2, 3, 4]; it must be [N, C, H, W]"),
        ({"grad": torch.zeros(2, 3, 4, 4).half()}, TypeError, "grad has dtype torch.float16 and x has torch.float32"),
        ({"grad": torch.zeros(2, 3, 5, 4)}, ValueError, "the convolution of x has [2, 3, 4, 4]"),
        ({"weight_size": (3, 4, 3)}, ValueError, "weight_size=[3, 4, 3] must be four positive numbers"),
        ({"weight_size": (0, 4, 3, 3)}, ValueError, "weight_size=[0, 4, 3, 3] must be four positive numbers"),
        ({"weight_size": (3, 5, 3, 3)}, ValueError, "weight_size=[3, 5, 3, 3] must be [3, 4 / 1, K, K]"),
        ({"groups": 3}, ValueError, "groups=3 must be positive and divide the 4 channels of x"),
        ({"stride": 0}, ValueError, "stride=0 must not be below 1"),
        ({"padding": -1}, ValueError, "padding=-1 must not be below 0"),
        ({"impl": "cudnn"}, ValueError, "impl='cudnn' must be one of"),
    ],
    ids=str,
)
def test_bad_arguments_name_themselves(change: dict[str, object], error: type[Exception], message: str) -> None:
    good = {"x": torch.zeros(2, 4, 6, 6), "weight_size": (3, 4, 3, 3), "grad": torch.zeros(2, 3, 4, 4)}
    with pytest.raises(error) as caught:
        conv2d_weight_grad(**(good | change))  # type: ignore[arg-type]
    assert str(caught.value).startswith("conv2d_weight_grad: ")
    assert message in str(caught.value)
