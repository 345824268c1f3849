"""How many micro-batches each rank takes: equally many, given numbers, or as measured times ask for.

A rank's weight in the gradient is its part of the images, so that the gradient is the plain mean over the batch
whatever the shares are. They are counted in units: micro-batches, or images where a rank's whole range is one
micro-batch.
"""

import heapq
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

from fastgan.errors import ConfigError

Shares = Literal["equal", "measured"] | tuple[int, ...]

# Shares change only where the slowest rank becomes faster by more than this part.
HYSTERESIS = Fraction(1, 20)


def check_shares(
    shares: Shares, group: range, *, batch_images: int, micro_batch_images: int | None, may_differ: bool
) -> None:
    """Refuses shares that do not give each rank of `group` at least one unit and all of them the batch.

    Args:
        may_differ: whether equal shares may differ by one unit where the batch does not divide over the ranks.
    Raises:
        ConfigError: with the key, the value, the rule and what to give instead.
    """
    num_ranks, unit = len(group), micro_batch_images or 1
    if shares == "equal" and not may_differ:
        factors = f"num_ranks x micro_batch_images = {num_ranks} x {unit} = {num_ranks * unit}"
        rule = f"num_ranks = {num_ranks}" if micro_batch_images is None else factors
        _check_multiple(batch_images, num_ranks * unit, rule)
        return
    if shares != "equal" and micro_batch_images is None:
        text = f"schedule.shares={shares if isinstance(shares, str) else list(shares)}"
        raise ConfigError(f"{text} counts micro-batches: give micro_batch_images, or schedule.shares=equal")
    _check_multiple(batch_images, unit, f"micro_batch_images = {unit}")
    num_units = batch_images // unit
    if num_units < num_ranks:
        what = "images" if micro_batch_images is None else f"micro-batches of {unit} images"
        raise ConfigError(
            f"batch_images={batch_images} must hold at least one of the {what} for each of {num_ranks} ranks; "
            f"give at least {num_ranks * unit}"
        )
    if not isinstance(shares, str):
        _check_counts(shares, group, num_units=num_units)


def _check_counts(shares: tuple[int, ...], group: range, *, num_units: int) -> None:
    mine = shares[group.start : group.stop]
    if any(count < 1 for count in mine):
        raise ConfigError(f"schedule.shares={list(shares)} must be at least 1 each; leave ranks without work out")
    if sum(mine) != num_units:
        where = (
            f"ranks {group.start} to {group.stop - 1} must add up to batch_images / micro_batch_images = {num_units}"
        )
        raise ConfigError(f"schedule.shares={list(shares)}: {where}, not {sum(mine)}; change the shares or the batch")


def rank_range(
    rank: int, group: range, *, batch_images: int, micro_batch_images: int | None, counts: Sequence[int]
) -> range:
    """The images of the batch, counted from 0, that `rank` takes; `counts` are those of all ranks, empty if equal."""
    unit = micro_batch_images or 1
    if counts:
        first = sum(counts[group.start : rank])
        return range(first * unit, (first + counts[rank]) * unit)
    place, num_ranks, num_units = rank - group.start, len(group), batch_images // unit
    return range(place * num_units // num_ranks * unit, (place + 1) * num_units // num_ranks * unit)


def rebalanced(
    counts: Sequence[int], measured: Sequence[int], microseconds: Sequence[int], *, groups: Sequence[range]
) -> tuple[int, ...]:
    """The shares with which each group's slowest rank would have been fastest, or `counts` where little is gained.

    Args:
        counts: of every rank, as decided so far.
        measured: micro-batches of every rank in the step that took `microseconds`.
        groups: ranks that share a batch; each is decided on its own.
    """
    found = list(counts)
    for group in groups:
        # Microseconds per micro-batch. A clock may show 0.
        pace = {rank: Fraction(max(1, microseconds[rank]), measured[rank]) for rank in group}
        best = _fastest(pace, num_units=sum(counts[rank] for rank in group))
        slowest_now = max(counts[rank] * pace[rank] for rank in group)
        slowest_then = max(best[rank] * pace[rank] for rank in group)
        if slowest_then < slowest_now * (1 - HYSTERESIS):
            for rank in group:
                found[rank] = best[rank]
    return tuple(found)


def _fastest(pace: dict[int, Fraction], *, num_units: int) -> dict[int, int]:
    """Units of every rank, at least 1, that make max(units x pace) smallest: each goes to who ends first with it."""
    counts = dict.fromkeys(pace, 1)
    heap = [(2 * time, rank) for rank, time in pace.items()]
    heapq.heapify(heap)
    for _ in range(num_units - len(pace)):
        end, rank = heap[0]
        counts[rank] += 1
        heapq.heapreplace(heap, (end + pace[rank], rank))
    return counts


def _check_multiple(batch_images: int, divisor: int, rule: str) -> None:
    below = batch_images // divisor * divisor
    if below == batch_images:
        return
    choices = f"{below} or {below + divisor}" if below else f"{divisor}"
    raise ConfigError(f"batch_images={batch_images} must be a multiple of {rule}; nearest: {choices}")
