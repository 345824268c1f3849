"""Settings for all tests."""

import importlib.util
import os

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
