"""Leaving out weight gradients where only input gradients are wanted, as in the inner pass of a gradient penalty."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_depth = 0


@contextmanager
def no_weight_gradients() -> Iterator[None]:
    """Inside, backward passes of fastgan's custom ops compute no gradient by weight and none by bias.

    Autograd asks an op written in Python for the gradients of all inputs that require one, also inside
    `autograd.grad(outputs, images)`, where the weights' are thrown away. Use it around such calls only: a weight
    whose gradient is asked for inside gets none. Gradients of gradients, taken later outside, are complete.

    It holds for the whole process, not for one thread, because autograd runs the backward pass of each GPU in a thread
    of its own. So no other thread may run a backward pass of the same process in the meantime.
    """
    _change_depth(+1)
    try:
        yield
    finally:
        _change_depth(-1)


def weight_gradients_are_wanted() -> bool:
    """False inside `no_weight_gradients`."""
    return _depth == 0


def _change_depth(change: int) -> None:
    global _depth  # noqa: PLW0603 - one number for the process; see above
    with _lock:
        _depth += change
