"""Rows as text for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.rows import Row


def format_milliseconds(milliseconds: float) -> str:
    """Three significant digits, with a unit that keeps the number readable."""
    if milliseconds >= 1000:
        return f"{milliseconds / 1e3:.3g} s"
    if milliseconds < 0.1:
        return f"{milliseconds * 1e3:.3g} µs"
    return f"{milliseconds:.3g} ms"


def format_bytes(num_bytes: int | None) -> str:
    """In MiB, or nothing."""
    return "" if num_bytes is None else f"{num_bytes / 2**20:,.1f} MiB"


def format_share(row: Row) -> str:
    """As a percentage, with the format of the products that it is held against, or nothing."""
    if row.share_of_roofline is None:
        return ""
    return f"{row.share_of_roofline:.0%}" + (f" ({row.product})" if row.product else "")


def format_ratio(row: Row, base: Row) -> str:
    """How many times as fast as `base`; nothing where one of them has no time or they do not compute the same."""
    if row.time is None or base.time is None or not row.is_compared:
        return ""
    return f"{base.time.p50 / row.time.p50:.2f}x"


def format_rate(row: Row) -> str:
    """Items per second, or nothing."""
    rate = row.items_per_second
    return "" if rate is None else f"{rate:,.0f} {row.item}/s"


def row_line(row: Row, *, base: Row) -> str:
    """One line: what was measured, its time and spread, and how it compares."""
    title = f"{row.benchmark}: {row.case}, {row.provider}, {row.dtype}"
    if row.time is None:
        return f"{title}: {row.refused}"
    spread = f"{format_milliseconds(row.time.p20)} to {format_milliseconds(row.time.p80)}"
    ratio = format_ratio(row, base)
    facts = [
        f"{format_milliseconds(row.time.p50)} ({spread})",
        format_rate(row),
        f"{ratio} of {base.provider}" if ratio and row.provider != base.provider else "",
        f"{format_share(row)} of the roofline" if row.share_of_roofline is not None else "",
        format_bytes(row.peak_memory_bytes),
        f"{row.num_collectives} collectives with {format_bytes(row.num_bytes_sent)}" if row.num_collectives else "",
        f"{format_bytes(row.num_bytes_kept)} kept" if row.num_bytes_kept else "",
        f"incomplete: {row.missing}" if row.missing else "",
    ]
    return f"{title}: {', '.join(fact for fact in facts if fact)}"


def last_error(output: str) -> str:
    """What a process that failed said last: its own `error:` line, if there is one, among what launchers add."""
    lines = [line.strip() for line in output.splitlines()]
    errors = [line for line in lines if line.startswith("error: ")]
    last = (errors or [line for line in lines if line] or ["the process ended without a word"])[-1]
    return last.removeprefix("error: ")


def count(number: int, noun: str) -> str:
    """ "1 core", "2 cores"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def machine_line(environment: Mapping[str, Any]) -> str:
    """CPU, GPUs and versions of an environment, as one sentence."""
    cpu, gpus = environment["cpu"], environment.get("gpus") or []
    parts = [f"{gpu['name']}, {gpu['memory_gib']} GiB" for gpu in gpus]
    if gpus:
        driver, cuda, cudnn = (environment.get(name) for name in ("gpu_driver", "cuda", "cudnn"))
        parts.append(f"driver {driver}, CUDA {cuda}, cuDNN {cudnn}")
    parts.append(
        f"{cpu['model']}, {count(cpu['num_cores'], 'core')}, {count(cpu['num_threads'], 'thread')}, {cpu['vectors']}"
    )
    bf16 = ", ".join(cpu["bf16_instructions"])
    parts.append(f"bf16 instructions: {bf16 or 'none'}")
    triton = environment["optional_packages"].get("triton")
    parts.append(f"torch {environment['packages']['torch']}" + (f", Triton {triton}" if triton else ""))
    return "; ".join(parts) + f"; Python {environment['python']}"
