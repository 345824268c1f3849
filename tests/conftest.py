"""Settings for all tests."""

import importlib.metadata
import importlib.util
import os
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


def mend_interpreter() -> None:
    """Triton 3.6's interpreter takes a loop's bound as int(array of one number), which numpy refuses since 2.4."""
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor

    def patch_and_mend(tensor: type, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.squeeze()))

    interpreter._patch_lang_tensor = patch_and_mend


if importlib.util.find_spec("triton") is not None and importlib.metadata.version("triton").startswith("3.6."):
    mend_interpreter()
