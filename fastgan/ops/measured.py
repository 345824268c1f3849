"""Measured choices: a table per GPU in the package, and a cache of what this machine measured itself.

Both are JSON: {"gpu": name, "versions": {...}, "entries": {op: {shape class: entry}}}, where an entry is
{"implementation": name, "milliseconds": {name: number}, "excluded": {name: reason}}. The cache lies in the user's cache
folder and is not read by other versions of torch, Triton or fastgan than those that wrote it.
"""

import functools
import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastgan import __version__

CANDIDATES = ("reference", "cudnn_fused", "triton")
TABLES = Path(__file__).with_name("tables")

# A candidate takes part when its error, relative to the largest number of the reference, is at most this.
_TOLERANCE = {torch.float32: 1e-2, torch.float16: 1e-2, torch.bfloat16: 4e-2}
_WARM_UPS, _REPEATS = 3, 10
_OUT_OF_MEMORY = torch.OutOfMemoryError.__name__

Entry = dict[str, Any]
# Milliseconds of a call.
Timer = Callable[[Callable[[], object]], float]


class Key(NamedTuple):
    """What a choice is stored under."""

    gpu: str
    op: str
    shape_class: str


def lookup(key: Key) -> str | None:
    """The implementation that the package's table or the cache names for `key`; None if neither does."""
    entry = _entries(key.gpu).get(key.op, {}).get(key.shape_class)
    return None if entry is None else str(entry["implementation"])


def measure_and_store(key: Key, run: Callable[[str], Tensor], inputs: Sequence[Tensor], timer: Timer) -> str:
    """Times every candidate once, stores the result in the cache, and names the fastest correct one."""
    entry = measure(run, inputs, timer)
    _entries(key.gpu).setdefault(key.op, {})[key.shape_class] = entry
    # What did not fit beside the tensors of this run may fit in the next.
    if not any(reason.startswith(_OUT_OF_MEMORY) for reason in entry["excluded"].values()):
        _store(key, entry)
    return str(entry["implementation"])


def measure(run: Callable[[str], Tensor], inputs: Sequence[Tensor], timer: Timer) -> Entry:
    """The entry for one call: forward, and backward to those of `inputs` that require a gradient.

    A candidate whose numbers are wrong, or which raises, is excluded with the reason. The reference always takes part.
    Random numbers of the run are left as they are, and what wraps saved tensors (checkpointing, offloading) sees none.
    """
    # Not a sum's gradient, which is the same in all pixels, wherever they land, and leaves the range of float16.
    wanted = [tensor for tensor in inputs if tensor.requires_grad and torch.is_grad_enabled()]
    with torch.no_grad():
        cotangent = _random_like(run("reference")) if wanted else None

    def step(name: str) -> list[Tensor]:
        with torch.autograd.graph.saved_tensors_hooks(_as_it_is, _as_it_is):
            y = run(name)
            return [y.detach(), *(torch.autograd.grad(y, wanted, cotangent) if wanted else ())]

    expected = step("reference")
    milliseconds, excluded = {"reference": timer(lambda: step("reference"))}, {}
    for name in CANDIDATES[1:]:
        try:
            problem = _wrong(step(name), expected)
            if problem is None:
                milliseconds[name] = timer(functools.partial(step, name))
        except Exception as error:  # a compiler's errors have no common class; the reason is kept
            problem = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        if problem is not None:
            excluded[name] = problem
    fastest = min(milliseconds, key=lambda name: milliseconds[name])
    return {"implementation": fastest, "milliseconds": milliseconds, "excluded": excluded}


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


def _random_like(y: Tensor) -> Tensor:
    """Normal numbers, the same in every call."""
    return torch.empty_like(y).normal_(generator=torch.Generator(y.device).manual_seed(0))


def _wrong(got: Sequence[Tensor], expected: Sequence[Tensor]) -> str | None:
    for mine, theirs in zip(got, expected, strict=True):
        size = theirs.abs().max().item()
        # In their own dtype: numbers that are near each other differ exactly, and large results leave room for no copy.
        error = (mine - theirs).abs_().max().item()
        if not error <= _TOLERANCE[theirs.dtype] * size or not math.isfinite(error):
            return f"differs from the reference by {error:.2g} where numbers reach {size:.2g}"
    return None


def time_on_gpu(call: Callable[[], object]) -> float:
    """Median milliseconds of a call on the current GPU, after warming up."""
    for _ in range(_WARM_UPS):
        call()
    times: list[float] = []
    for _ in range(_REPEATS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return sorted(times)[_REPEATS // 2]


def summary(gpu: str, op: str) -> str:
    """One line for people: the choices known for this op on this GPU, what was excluded, and where new ones go."""
    entries = _entries(gpu).get(op, {}).values()
    names = [entry["implementation"] for entry in entries]
    known = [f"{name} {names.count(name)}" for name in CANDIDATES if name in names] or ["none yet"]
    for name in CANDIDATES:
        reasons = [entry["excluded"][name] for entry in entries if name in entry["excluded"]]
        if reasons:
            known.append(f"{name} excluded from {len(reasons)}: {reasons[0]}")
    chosen = f"auto: fastest by measurement on {gpu} ({', '.join(known)})"
    return f"{chosen}, new shapes are measured once into {_cache_path(gpu)}"


@functools.cache
def _entries(gpu: str) -> dict[str, dict[str, Entry]]:
    """Everything known about this GPU, op by op; what this machine measured goes before the package's table."""
    entries: dict[str, dict[str, Entry]] = {}
    for path in (TABLES / f"{_slug(gpu)}.json", _cache_path(gpu)):
        for op, classes in _read(path, any_version=path.parent == TABLES).items():
            entries.setdefault(op, {}).update(classes)
    return entries


def _read(path: Path, *, any_version: bool) -> dict[str, dict[str, Entry]]:
    """The entries of a file; none if it cannot be read, is damaged or comes from other versions."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not any_version and content["versions"] != _versions():
            return {}
        return {
            op: {
                name: entry
                for name, entry in classes.items()
                if entry["implementation"] in CANDIDATES and entry["excluded"].keys() <= set(CANDIDATES)
            }
            for op, classes in content["entries"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _store(key: Key, entry: Entry) -> None:
    """Adds the entry to the cache; a folder that cannot be written only costs measuring again in the next process.

    The file is replaced as a whole: of two processes that write at once one's newest entry may be lost, never a part.
    """
    path = _cache_path(key.gpu)
    entries = _read(path, any_version=False)
    entries.setdefault(key.op, {})[key.shape_class] = entry
    content = json.dumps({"gpu": key.gpu, "versions": _versions(), "entries": entries}, indent=1, sort_keys=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, ignore_cleanup_errors=True) as folder:
            written = Path(folder, path.name)
            written.write_text(content, encoding="utf-8")
            os.replace(written, path)
    except OSError:
        return


def _cache_path(gpu: str) -> Path:
    """Its file, in the folder for temporary files where the user has no home, as in some containers."""
    try:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        root = Path(tempfile.gettempdir())
    return root / "fastgan" / "implementations" / f"{_slug(gpu)}.json"


def _slug(gpu: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")


def _versions() -> dict[str, str]:
    # Not from the metadata of distributions: a checkout need not be installed, and some ship Triton by another name.
    import triton

    return {"fastgan": __version__, "torch": torch.__version__, "triton": triton.__version__}
