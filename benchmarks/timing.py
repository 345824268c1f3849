"""Samples of several providers, taken in turns, so that a machine that slows down slows all of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from benchmarks.machine import Stopwatch
from benchmarks.rows import Spread


class Settings(NamedTuple):
    """How long to measure.

    seconds_per_provider: sampling ends when all providers together have had so much each, and `min_rounds` are done.
    min_sample_seconds: a sample repeats the call until it is this long, so that the clock's own cost does not count.
    buffer_factor: the inputs that calls take in turn are together this many times the last cache.
    """

    min_rounds: int = 20
    max_rounds: int = 200
    num_warmup_calls: int = 5
    seconds_per_provider: float = 1.0
    min_sample_seconds: float = 5e-3
    buffer_factor: float = 2.0


QUICK = Settings(min_rounds=3, max_rounds=5, num_warmup_calls=1, seconds_per_provider=0.1, min_sample_seconds=5e-4)
FULL = Settings()


class Samples(NamedTuple):
    """The time of a call on the device, and the median time until it has returned."""

    time: Spread
    host_milliseconds: float


# One call; its argument numbers the calls, so that each can take other buffers than the one before.
Call = Callable[[int], Any]


def interleave(calls: Mapping[str, Call], watch: Stopwatch, settings: Settings) -> dict[str, Samples]:
    """Rounds in which each call is sampled once, in an order that rotates from round to round."""
    num_calls = {name: _calls_per_sample(call, watch, settings) for name, call in calls.items()}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    names, began = list(calls), time.perf_counter()
    for number in range(settings.max_rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            start = number * num_calls[name]
            seconds[name].append(_sample(calls[name], watch, first=start, num_calls=num_calls[name]))
        is_over = time.perf_counter() - began > settings.seconds_per_provider * len(names)
        if is_over and number + 1 >= settings.min_rounds:
            break
    return {
        name: Samples(
            Spread.of([device * 1e3 for device, _ in pairs], num_calls=num_calls[name]),
            Spread.of([host * 1e3 for _, host in pairs]).p50,
        )
        for name, pairs in seconds.items()
    }


def _sample(call: Call, watch: Stopwatch, *, first: int, num_calls: int) -> tuple[float, float]:
    """Seconds per call: on the device, and until the last call has returned."""
    watch.start()
    began = time.perf_counter()
    for index in range(first, first + num_calls):
        call(index)
    host = time.perf_counter() - began
    return watch.stop() / num_calls, host / num_calls


def _calls_per_sample(call: Call, watch: Stopwatch, settings: Settings) -> int:
    """Warms up, then counts the calls that fill the shortest sample allowed."""
    for index in range(settings.num_warmup_calls):
        call(index)
    seconds = min(_sample(call, watch, first=index, num_calls=1)[0] for index in range(2))
    return max(1, math.ceil(settings.min_sample_seconds / max(seconds, 1e-7)))
