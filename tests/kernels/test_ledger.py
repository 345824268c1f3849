"""Every kernel compiles for every architecture in every configuration, and needs no more than the ledger says."""

import functools
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.guards.tree import ROOT
from tests.kernels.ledger import ARCHITECTURES, LEDGER

STEMS = ("conv2d", "conv_transpose2d", "partial_sums")
MATRIX_KERNELS = tuple(f"{stem}{way}_kernel" for stem in STEMS for way in ("", "_tma"))
GROWTH = 1.10
REMEDY = "if the change is meant: python -m tests.kernels.ledger --update"

Resources = dict[str, Any]


@functools.cache
def compiled(architecture: int) -> dict[str, Resources]:
    """Compiled in a process of its own: Triton's interpreter, which other tests use, cannot be switched off again."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.kernels.ledger", str(architecture)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    resources: dict[str, Resources] = json.loads(done.stdout)
    return resources


def ledger(architecture: int) -> tuple[dict[str, Resources], bool]:
    """What the ledger says, and whether it is of this version of Triton."""
    content = json.loads(LEDGER.read_text(encoding="utf-8"))
    resources: dict[str, Resources] = content[f"sm_{architecture}"]
    return resources, content["triton"] == pytest.importorskip("triton").__version__


def findings(now: dict[str, Resources], before: dict[str, Resources], *, same_compiler: bool = True) -> list[str]:
    """What is worse than before, in sentences; sizes are compared only where one compiler made both."""
    if now.keys() != before.keys():
        return [f"only in the ledger or only in the code: {name}" for name in sorted(now.keys() ^ before.keys())]
    found = []
    for name, one in now.items():
        then = before[name]
        if one["stack_bytes"]:
            found.append(f"{name}: {one['stack_bytes']} bytes on the stack, where spilled registers lie")
        if same_compiler and one["registers"] > GROWTH * then["registers"]:
            found.append(f"{name}: {one['registers']} registers, the ledger says {then['registers']}")
        if same_compiler and one["shared_bytes"] > then["shared_bytes"]:
            found.append(f"{name}: {one['shared_bytes']} bytes shared, the ledger says {then['shared_bytes']}")
        if name.endswith(MATRIX_KERNELS) and not one["tensor_cores"]:
            found.append(f"{name}: no tensor core instruction")
        if "_tma_" in name and not one["tma"]:
            found.append(f"{name}: no tensor copy instruction")
        if one["tensor_cores"] != then["tensor_cores"] or one["tma"] != then["tma"]:
            found.append(f"{name}: other instructions than {then['tensor_cores']}, tma {then['tma']}")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_kernel_needs_more_than_the_ledger_says(architecture: int) -> None:
    before, same_compiler = ledger(architecture)
    found = findings(compiled(architecture), before, same_compiler=same_compiler)
    assert not found, "\n".join([f"{REMEDY}:", *found])


GOOD = {"registers": 100, "shared_bytes": 1024, "stack_bytes": 0, "tensor_cores": ["wgmma.mma_async"], "tma": False}


@pytest.mark.parametrize(
    "change",
    [{"stack_bytes": 1}, {"registers": 111}, {"shared_bytes": 2048}, {"tensor_cores": []}, {"tma": True}],
    ids=lambda change: next(iter(change)),
)
def test_each_regression_is_found(change: Resources) -> None:
    before = {"a / conv2d_kernel": GOOD}
    assert findings(before, before) == []
    assert findings({"a / conv2d_kernel": GOOD | change}, before)
    assert findings({}, before)


def test_ten_percent_more_registers_pass() -> None:
    assert findings({"a": GOOD | {"registers": 110}}, {"a": GOOD}) == []


def test_another_compiler_may_need_more_but_must_not_spill() -> None:
    before = {"a / conv2d_kernel": GOOD}
    larger = {"a / conv2d_kernel": GOOD | {"registers": 200, "shared_bytes": 4096}}
    assert findings(larger, before, same_compiler=False) == []
    for change in ({"stack_bytes": 1}, {"tensor_cores": []}, {"tma": True}):
        assert findings({"a / conv2d_kernel": GOOD | change}, before, same_compiler=False)
