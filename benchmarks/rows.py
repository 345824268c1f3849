"""What a measurement says: rows with their spread, and the ceilings of the machine in the same run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Spread(_Model):
    """Percentiles 20, 50 and 80 over `num_runs` samples, in milliseconds per call; a sample averages `num_calls`."""

    p20: Positive
    p50: Positive
    p80: Positive
    num_runs: Annotated[int, Field(ge=1)]
    num_calls: Annotated[int, Field(ge=1)]

    @classmethod
    def of(cls, milliseconds: Sequence[float], *, num_calls: int = 1) -> Self:
        """The spread of samples; between two samples a percentile is interpolated."""
        ordered = sorted(milliseconds)
        p20, p50, p80 = (_percentile(ordered, share) for share in (0.2, 0.5, 0.8))
        return cls(p20=p20, p50=p50, p80=p80, num_runs=len(ordered), num_calls=num_calls)


def _percentile(ordered: Sequence[float], share: float) -> float:
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


class KernelUse(_Model):
    """A kernel on a GPU, or an operator on a CPU, as the profiler saw it in one call."""

    name: str
    num_launches: Count
    microseconds: Annotated[float, Field(ge=0)]


class Ceilings(_Model):
    """What the machine reaches with a plain copy (bytes read and written) and a matrix product, by number format."""

    copy_bytes_per_second: Positive
    matmul_flops_per_second: dict[str, Positive]


class Row(_Model):
    """One provider on one case: either its time, or why it has none.

    Attributes:
        benchmark, case, provider, device, dtype: what was measured; together they are the row's key.
        time: device time on a GPU, wall time on a CPU.
        refused: why there is no time: a wrong result, or what is missing.
        error: largest difference from float64 over the largest value, over all outputs.
        num_items, item: what one call processes, for example 64 images.
        num_bytes, num_flops: the least that the computation must move and compute.
        share_of_roofline: the time that the ceilings allow for those, over the median time.
        product: the number format of the matrix product that is its ceiling, where that is not `dtype`.
        host_milliseconds: median time until a call has returned; on a GPU the device may still be working.
        peak_memory_bytes: most memory of tensors during a call, above what was there before it.
        process_peak_bytes: most resident memory of a process of its own (VmHWM), where measured.
        kernels: those that took longest in one call.
        num_launches: of all kernels in one call.
        device_microseconds: sum over all kernels in one call.
        num_ops, num_collectives, num_bytes_sent: operators of torch and communication in one call, where counted.
        num_bytes_kept: of all floating-point tensors of the first process between calls, where counted.
        is_compared: whether it is one of several ways to the same result; not where rows are parts of a whole.
        missing: why a row with a time lacks what was to be found out after it.
    """

    benchmark: str
    case: str
    provider: str
    device: str
    dtype: str
    time: Spread | None = None
    refused: str | None = None
    error: float | None = None
    num_items: Count | None = None
    item: str | None = None
    num_bytes: Count | None = None
    num_flops: Count | None = None
    share_of_roofline: float | None = None
    product: str | None = None
    host_milliseconds: float | None = None
    peak_memory_bytes: Count | None = None
    process_peak_bytes: Count | None = None
    kernels: tuple[KernelUse, ...] = ()
    num_launches: Count | None = None
    device_microseconds: float | None = None
    num_ops: Count | None = None
    num_collectives: Count | None = None
    num_bytes_sent: Count | None = None
    num_bytes_kept: Count | None = None
    is_compared: bool = True
    missing: str | None = None

    @model_validator(mode="after")
    def _has_time_or_reason(self) -> Self:
        if (self.time is None) == (self.refused is None):
            raise ValueError(f"{self.case}, {self.provider}: a row has a time or the reason why it has none")
        return self

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """What must be equal in two records for their times to be compared."""
        return self.benchmark, self.case, self.provider, self.device, self.dtype

    @property
    def items_per_second(self) -> float | None:
        """At the median time."""
        if self.time is None or self.num_items is None:
            return None
        return self.num_items / self.time.p50 * 1e3


class Figures(_Model):
    """The figures of a record that holds rows."""

    rows: tuple[Row, ...]
    ceilings: Ceilings | None = None


def roofline_share(
    milliseconds: float, *, num_bytes: int | None, num_flops: int | None, product: str, ceilings: Ceilings | None
) -> float | None:
    """max(bytes / copy rate, FLOPs / matrix product rate) / time; None where a term is unknown.

    Above 1 where the data stays in a cache, which the copy was too large for.
    """
    if ceilings is None or num_bytes is None or num_flops is None:
        return None
    rate = ceilings.matmul_flops_per_second.get(product)
    if rate is None:
        return None
    least_seconds = max(num_bytes / ceilings.copy_bytes_per_second, num_flops / rate)
    return least_seconds / (milliseconds / 1e3)
