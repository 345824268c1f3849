"""Measures providers of one computation side by side: right first, then time, memory and the kernels that ran."""

from __future__ import annotations

import contextlib
import gc
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.gate import complaint, limit_of_others, limit_of_yardstick, relative_error
from benchmarks.machine import DTYPES, CpuStopwatch, cache_bytes, stopwatch
from benchmarks.op_counts import Counts, count_ops
from benchmarks.profiling import CallProfile, profile_call
from benchmarks.rows import Ceilings, Row, Spread, roofline_share
from benchmarks.timing import Samples, Settings, interleave
from fastgan.errors import FastganError

Inputs = tuple[Tensor, ...]
# From inputs to all outputs that count: values, and gradients where they are part of the computation.
Run = Callable[..., Sequence[Tensor]]

_MAX_INPUT_SETS = 64
_MAX_INPUT_BYTES = 1 << 31


@dataclass(frozen=True)
class Provider:
    """One way to compute a case.

    Attributes:
        build: makes `run`; may raise where something is missing, which becomes the row's reason.
        prepare: brings a set of inputs into the provider's form, outside of the time.
        check: outputs to compare with float64, where `run` itself returns none that can be compared.
        exact: what they are compared with, where that is not what is right for the case.
        dtype: where it is not that of the case.
        is_counted: whether the operators of a call may be counted: what torch.compile made runs eagerly ever after.
        count: the operators of a call, where the process that asks cannot see them.
        kept: the bytes of tensors that live between calls, where a process of its own knows them.
        close: ends what `run` holds on to, such as processes; called when the case has been measured.
    """

    name: str
    build: Callable[[], Run]
    prepare: Callable[[Inputs], Inputs] = lambda inputs: inputs
    check: Callable[[Run, Inputs], Sequence[Tensor]] = lambda run, inputs: run(*inputs)
    exact: Run | None = None
    dtype: str | None = None
    is_counted: bool = True
    count: Callable[[Run], Counts] | None = None
    kept: Callable[[Run], int] | None = None
    close: Callable[[Run], None] = lambda run: None


@dataclass(frozen=True)
class Case:
    """A computation on inputs of a given size.

    The first provider is what the others are compared with; the first of each dtype is the yardstick of its errors.

    Attributes:
        make_inputs: a set of inputs from a seed.
        exact: from inputs in float64 to the outputs of `Provider.check`.
        product: number format of the matrix product that is the ceiling of `num_flops`, where that is not `dtype`.
        is_compared: whether all providers compute the same, so that their times may be compared.
        counts_ops: whether rows say how many operators and collectives a call takes.
        runs_elsewhere: other processes do the work; a call is timed by the clock on the wall and not profiled.
        measure_error: from outputs and what is exact to a number.
        tolerance: from a dtype's name to the largest error that is right, where the yardstick's is not the measure.
        error_factor: how many times the yardstick's error is still right; more than twice for whole networks, whose
            passes add up in other orders.
    """

    benchmark: str
    name: str
    device: torch.device
    dtype: str
    make_inputs: Callable[[int], Inputs]
    exact: Run
    providers: tuple[Provider, ...]
    num_bytes: int | None = None
    num_flops: int | None = None
    product: str | None = None
    num_items: int | None = None
    item: str | None = None
    is_compared: bool = True
    counts_ops: bool = False
    runs_elsewhere: bool = False
    measure_error: Callable[[Sequence[Tensor], Sequence[Tensor]], float] = relative_error
    tolerance: Callable[[str], float] | None = None
    error_factor: float = 2.0


def measure_case(case: Case, settings: Settings, ceilings: Ceilings | None = None) -> list[Row]:
    """One row for each provider, in their order."""
    found = _Findings({}, {}, {}, {}, {}, {})
    with best_kernels(), contextlib.ExitStack() as stack:
        runs = _admit(case, found, stack)
        calls = _calls(case, runs, settings)
        for provider in case.providers:
            if provider.name in calls:
                _look_inside(case, provider, runs[provider.name], calls[provider.name], found)
        right = {name: call for name, call in calls.items() if name not in found.refused}
        watch = CpuStopwatch() if case.runs_elsewhere else stopwatch(case.device)
        with _no_garbage_collection():
            found.samples.update(interleave(right, watch, settings) if right else {})
    return [_row(case, provider, found, ceilings) for provider in case.providers]


def _look_inside(case: Case, provider: Provider, run: Run, call: Callable[[int], object], found: _Findings) -> None:
    """Profiles and counts one call."""
    try:
        if not case.runs_elsewhere:
            found.profiles[provider.name] = profile_call(lambda: call(0), case.device)
        if case.counts_ops and provider.is_counted:
            count = provider.count
            found.counts[provider.name] = count_ops(lambda: call(0)) if count is None else count(run)
        if provider.kept is not None:
            found.kept[provider.name] = provider.kept(run)
    except Exception as error:  # the others go on
        found.refused[provider.name] = _reason(error)


class _Findings(NamedTuple):
    """What is known of each provider, by name."""

    errors: dict[str, float]
    refused: dict[str, str]
    profiles: dict[str, CallProfile]
    counts: dict[str, Counts]
    kept: dict[str, int]
    samples: dict[str, Samples]


def _row(case: Case, provider: Provider, found: _Findings, ceilings: Ceilings | None) -> Row:
    name = provider.name
    error = found.errors.get(name, math.inf)
    row = Row(
        benchmark=case.benchmark,
        case=case.name,
        provider=name,
        device=case.device.type,
        dtype=provider.dtype or case.dtype,
        time=found.samples[name].time if name in found.samples else None,
        refused=found.refused.get(name),
        error=error if math.isfinite(error) else None,
        num_items=case.num_items,
        item=case.item,
        num_bytes=case.num_bytes,
        num_flops=case.num_flops,
        product=case.product if provider.dtype in {None, case.dtype} else None,
        is_compared=case.is_compared,
    )
    return row if row.time is None else _with_profile(row, row.time, found, ceilings)


def _with_profile(row: Row, time: Spread, found: _Findings, ceilings: Ceilings | None) -> Row:
    call, counts = found.profiles.get(row.provider), found.counts.get(row.provider)
    share = roofline_share(
        time.p50,
        num_bytes=row.num_bytes,
        num_flops=row.num_flops,
        product=row.product or row.dtype,
        ceilings=ceilings,
    )
    return row.model_copy(
        update={
            "share_of_roofline": share,
            "host_milliseconds": found.samples[row.provider].host_milliseconds,
            "peak_memory_bytes": call and call.peak_bytes,
            "kernels": call.kernels if call else (),
            "num_launches": call and call.num_launches,
            "device_microseconds": call and call.device_microseconds,
            "num_ops": counts and counts.num_ops,
            "num_collectives": counts and counts.num_collectives,
            "num_bytes_sent": counts and counts.num_bytes_sent,
            "num_bytes_kept": found.kept.get(row.provider),
        }
    )


def _admit(case: Case, found: _Findings, stack: contextlib.ExitStack) -> dict[str, Run]:
    """The providers that run and are right; notes the errors of all, and what is wrong with the others.

    Args:
        stack: closes whatever is built.
    """
    inputs = case.make_inputs(0)
    wide = [_as_float64(x) for x in inputs]
    exact = [y.detach() for y in case.exact(*wide)]
    runs: dict[str, Run] = {}
    limits: dict[str, float] = {}
    for provider in case.providers:
        try:
            run = provider.build()
            stack.callback(provider.close, run)
            right = exact if provider.exact is None else provider.exact(*wide)
            error = case.measure_error(provider.check(run, provider.prepare(inputs)), right)
        except Exception as failure:  # a provider that fails is a finding, and must not end the others
            found.refused[provider.name] = _reason(failure)
            continue
        found.errors[provider.name] = error
        dtype = provider.dtype or case.dtype
        limit = limits.get(dtype, limit_of_yardstick(DTYPES[dtype], case.device))
        wrong = complaint(error, limit if case.tolerance is None else case.tolerance(dtype))
        if wrong is not None:
            found.refused[provider.name] = wrong
            continue
        runs[provider.name] = run
        limits.setdefault(dtype, limit_of_others(error, DTYPES[dtype], factor=case.error_factor))
    return runs


def _as_float64(x: Tensor) -> Tensor:
    return x.detach().double().requires_grad_(x.requires_grad) if x.is_floating_point() else x


def _reason(error: Exception) -> str:
    """The first line of what it says; errors that say what is missing go without their name."""
    lines = str(error).strip().splitlines() or ["no message"]
    name = "" if type(error) is RuntimeError or isinstance(error, FastganError) else f"{type(error).__name__}: "
    return f"{name}{lines[0]}"[:300]


def _calls(case: Case, runs: dict[str, Run], settings: Settings) -> dict[str, Callable[[int], object]]:
    """For each right provider a call that takes one set of inputs after the other."""
    sets = input_sets(case, settings) if runs else []
    return {
        provider.name: _call(runs[provider.name], [provider.prepare(inputs) for inputs in sets])
        for provider in case.providers
        if provider.name in runs
    }


def _call(run: Run, sets: list[Inputs]) -> Callable[[int], object]:
    return lambda index: run(*sets[index % len(sets)])


def input_sets(case: Case, settings: Settings) -> list[Inputs]:
    """So many sets of inputs that a call finds none of its own in the last cache."""
    first = case.make_inputs(0)
    num_bytes = sum(x.numel() * x.element_size() for x in first)
    if num_bytes == 0:
        return [first]
    wanted = math.ceil(settings.buffer_factor * cache_bytes(case.device) / num_bytes)
    num_sets = max(1, min(wanted, _MAX_INPUT_SETS, _MAX_INPUT_BYTES // num_bytes))
    return [first, *(case.make_inputs(seed) for seed in range(1, num_sets))]


@contextlib.contextmanager
def best_kernels() -> Iterator[None]:
    """cuDNN tries its algorithms and keeps the fastest, for every provider alike."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=True):
        yield


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def measure_cases(
    cases: Iterable[Case],
    settings: Settings,
    *,
    ceilings: Ceilings | None = None,
    on_rows: Callable[[list[Row]], None],
    finish: Callable[[Row], Row] = lambda row: row,
    is_over: Callable[[], bool] = lambda: False,
) -> bool:
    """Hands the rows of each case to `on_rows` as they come, completed by `finish`.

    No case begins once `is_over`. One that fails, say for want of memory, has rows that say so; where only `finish`
    fails, the row keeps what it has and says why the rest is missing.

    Returns:
        Whether all cases were measured.
    """
    for case in cases:
        if is_over():
            return False
        on_rows(_rows_of(case, settings, ceilings, finish))
    return True


def _rows_of(case: Case, settings: Settings, ceilings: Ceilings | None, finish: Callable[[Row], Row]) -> list[Row]:
    try:
        rows = [_finished(row, finish) for row in measure_case(case, settings, ceilings)]
        # A case on a GPU may need all of its memory.
        if case.device.type == "cuda":
            torch.cuda.empty_cache()
    except Exception as error:  # the other cases go on
        found = _Findings({}, {provider.name: _reason(error) for provider in case.providers}, {}, {}, {}, {})
        return [_row(case, provider, found, ceilings) for provider in case.providers]
    return rows


def _finished(row: Row, finish: Callable[[Row], Row]) -> Row:
    """What has been measured stays, whatever becomes of what is to be added to it."""
    try:
        return finish(row)
    except Exception as error:
        return row.model_copy(update={"missing": _reason(error)})
