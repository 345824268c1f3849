"""Settings for all tests."""

import importlib.util
import os
from importlib import metadata
from typing import Any

import torch

# The tests of kernels also run on GPU machines that have no hypothesis.
if importlib.util.find_spec("hypothesis") is not None:
    from hypothesis import settings

    # A busy machine must not fail a property test: time is measured in benchmarks/ only.
    settings.register_profile("fastgan", deadline=None)
    settings.load_profile("fastgan")

# Without a GPU, Triton's interpreter runs the kernels. Triton reads this once, when it is first imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


def _mend_interpreter() -> None:
    """Lets the interpreter of Triton 3.6 run `range()` over a number in a kernel, which numpy 2.4 no longer lets it."""
    from triton.runtime import interpreter

    original = interpreter._patch_lang_tensor

    def patch(tensor: Any, scope: Any) -> None:
        original(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patch


IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1" and importlib.util.find_spec("triton") is not None
if IS_INTERPRETED and metadata.version("triton").startswith("3.6."):
    _mend_interpreter()
