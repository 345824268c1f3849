"""Custom ops without the dispatcher's layers, where nobody listens there.

torch.library leads a call of an op written in Python through several layers of Python, which take longer than a GPU
takes for a small kernel (`benchmarks/LOG.md` has the times). Eager code needs none of them: the same formulas run as an
autograd function. Whatever looks at ops (torch.compile, tracing, modes, tensor subclasses, transforms) gets the op.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fastgan.ops.native_choice import transform_limit

# Subclasses may stand for something else than numbers in memory.
PLAIN = (Tensor, nn.Parameter)
_FLOATS = (float, type(None))


def register(
    name: str,
    run: Callable[..., Tensor],
    *,
    fake: Callable[..., Tensor],
    setup_context: Callable[[Any, tuple[Any, ...], Tensor], None],
    backward: Callable[[Any, Tensor], tuple[Tensor | None, ...]],
    schema: str | None = None,
) -> Callable[..., Tensor]:
    """Registers the custom op fastgan::NAME and returns a function of its arguments, all of them positional.

    Args:
        run: computes the op; its result shares no memory with an argument.
        fake, setup_context, backward, schema: as torch.library takes them.
    """
    op = torch.library.custom_op(f"fastgan::{name}", run, mutates_args=(), schema=schema)
    op.register_fake(fake)
    op.register_autograd(backward, setup_context=setup_context)
    by_dispatcher: Callable[..., Tensor] = getattr(torch.ops.fastgan, name)
    by_function: Callable[..., Tensor] = _as_function(name, run, setup_context, backward).apply
    kinds = [str(argument.type) for argument in op._opoverload._schema.arguments]
    tensors, floats = ([i for i, kind in enumerate(kinds) if word in kind] for word in ("Tensor", "float"))

    def call(*arguments: Any) -> Tensor:
        given = [arguments[i] for i in tensors if arguments[i] is not None]
        if is_listened_to() or not all(_is_plain(x) for x in given):
            return by_dispatcher(*arguments)
        if any(type(arguments[i]) not in _FLOATS for i in floats):
            return by_dispatcher(*arguments)  # which makes floats of whatever else can be one
        if torch.is_grad_enabled() and any(x.requires_grad for x in given):
            return by_function(*arguments)
        if torch._C._autograd._profiler_enabled():
            with torch.profiler.record_function(f"fastgan::{name}"):
                return run(*arguments)
        return run(*arguments)

    return call


def _as_function(name: str, run: Callable[..., Tensor], setup_context: Any, backward: Any) -> Any:
    """The op's formulas as an autograd function, which profilers show by the op's name."""

    def forward(ctx: Any, *arguments: Any) -> Tensor:
        output = run(*arguments)
        setup_context(ctx, arguments, output)
        return output

    methods = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    return type(f"fastgan::{name}", (torch.autograd.Function,), methods)


def _is_plain(x: Tensor) -> bool:
    """Whether `x` is the numbers in its memory: no signs that are still to be turned, no zeros that have none."""
    return type(x) in PLAIN and not x.is_neg() and not x._is_zerotensor()


def is_listened_to() -> bool:
    """Whether something wants to see the ops that are called."""
    # torch.compile is asked about first: it cannot trace the other questions.
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._len_torch_function_stack() > 0
        or torch._C._is_tracing()
        or transform_limit() is not None
    )
