"""What became slower since an earlier record."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from benchmarks.record import Record
from benchmarks.rows import Row
from benchmarks.text import format_milliseconds

# What a time depends on besides the code.
_FACTS = ("gpus", "gpu_driver", "cuda", "cudnn", "python")
_PARTS = (
    *(("cpu", name) for name in ("model", "num_cores", "num_threads", "vectors", "bf16_instructions")),
    ("packages", "torch"),
    ("optional_packages", "triton"),
)


def compare_rows(earlier: Sequence[Row], now: Sequence[Row]) -> list[str]:
    """One line for every row with a time in both, one for each that lost or gained its time; worst first."""
    before, lines = {row.key: row for row in earlier}, []
    found = {row.key: row for row in now}
    for key in before.keys() & found.keys():
        lines.append(_line(before[key], found[key]))
    lines.sort()
    num_gone = len(before.keys() - found.keys())
    gone = [f"of the earlier record, {num_gone} of {len(before)} rows are not in this one"] if num_gone else []
    return [text for _, text in lines] + gone


def _line(before: Row, now: Row) -> tuple[float, str]:
    title = f"{now.benchmark}: {now.case}, {now.provider}, {now.dtype}"
    if now.time is None or before.time is None:
        if before.time is None:
            return math.inf, f"new time    {title}" if now.time is not None else f"no time     {title}"
        return 0.0, f"LOST        {title}: {now.refused}"
    ratio = before.time.p50 / now.time.p50
    times = f"{format_milliseconds(before.time.p50)} to {format_milliseconds(now.time.p50)}, {ratio:.2f}x"
    return ratio, f"{verdict(before, now):<11} {title}: {times}"


def verdict(before: Row, now: Row) -> str:
    """SLOWER or faster where the ranges from p20 to p80 do not overlap, else "the same"."""
    assert before.time is not None
    assert now.time is not None
    if now.time.p20 > before.time.p80:
        return "SLOWER"
    return "faster" if now.time.p80 < before.time.p20 else "the same"


def environment_differences(earlier: Record, now: Record) -> Iterator[str]:
    """One sentence for every fact that makes the times hard to compare."""
    pairs = [(name, earlier.environment.get(name), now.environment.get(name)) for name in _FACTS]
    for group, name in _PARTS:
        title = f"cpu {name}" if group == "cpu" else name
        pairs.append((title, *(record.environment.get(group, {}).get(name) for record in (earlier, now))))
    pairs.append(("quick", earlier.configuration.get("quick"), now.configuration.get("quick")))
    for name, before, after in pairs:
        if before != after:
            yield f"{name} was {before} in the earlier record and is {after} now: the times are hard to compare"
