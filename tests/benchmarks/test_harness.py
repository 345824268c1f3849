"""The harness: a wrong result gets no time, the turns are fair, and a row says what ran."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from benchmarks import ceilings, harness, timing
from benchmarks.ceilings import product_of_convolutions
from benchmarks.gate import limit_of_others, limit_of_yardstick, relative_error
from benchmarks.harness import Case, Inputs, Provider, input_sets, measure_case, measure_cases
from benchmarks.machine import CpuStopwatch, gpu_clocks
from benchmarks.profiling import profile_call
from benchmarks.rows import Ceilings, Row, Spread, roofline_share
from benchmarks.text import row_line
from benchmarks.timing import QUICK, Settings, interleave

CPU = torch.device("cpu")
TINY = Settings(min_rounds=2, max_rounds=2, num_warmup_calls=1, seconds_per_provider=0, min_sample_seconds=0)


def make_inputs(seed: int) -> Inputs:
    return (torch.randn(8, 8, generator=torch.Generator().manual_seed(seed)),)


def square(x: Tensor) -> Sequence[Tensor]:
    return (x @ x,)


def provider(name: str, run: Callable[..., Sequence[Tensor]]) -> Provider:
    return Provider(name, build=lambda: run)


def case(*providers: Provider, name: str = "8x8", dtype: str = "fp32") -> Case:
    return Case("square", name, CPU, dtype, make_inputs, square, providers, num_bytes=512, num_flops=1024)


def test_right_providers_get_a_time_and_all_that_belongs_to_it() -> None:
    roof = Ceilings(copy_bytes_per_second=1e9, matmul_flops_per_second={"fp32": 1e9})
    eager, twice = measure_case(case(provider("eager", square), provider("twice", square)), TINY, roof)
    assert (eager.provider, twice.provider) == ("eager", "twice")
    for row in (eager, twice):
        assert row.time is not None
        assert row.time.num_runs == 2
        assert row.error is not None
        assert row.error < 1e-6
        assert row.share_of_roofline == pytest.approx(1024e-9 / (row.time.p50 * 1e-3))
        assert row.peak_memory_bytes == 256
        assert "aten::mm" in {kernel.name for kernel in row.kernels}


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (lambda x: (x @ x * 1.001,), "wrong result: error 0.001"),
        (lambda x: (x @ x * math.nan,), "wrong result: error inf"),
        (lambda x: ((x @ x)[:4],), "ValueError: outputs have shapes"),
        (lambda x: x.nothing, "AttributeError: 'Tensor' object has no attribute"),
    ],
)
def test_a_wrong_result_gets_no_time(run: Callable[..., Sequence[Tensor]], reason: str) -> None:
    eager, wrong = measure_case(case(provider("eager", square), provider("wrong", run)), TINY)
    assert eager.time is not None
    assert wrong.time is None
    assert wrong.refused is not None
    assert wrong.refused.startswith(reason)
    assert wrong.kernels == ()


def test_a_wrong_yardstick_gets_no_time_and_lends_no_tolerance() -> None:
    bad = provider("eager", lambda x: (x @ x * 1.5,))
    worse, right = measure_case(case(bad, provider("right", square)), TINY)
    assert worse.refused is not None
    assert right.time is not None


def test_each_dtype_has_its_own_yardstick() -> None:
    def rounded(x: Tensor) -> Sequence[Tensor]:
        return ((x.bfloat16() @ x.bfloat16()).float(),)

    low = Provider("low", build=lambda: rounded, dtype="bf16")
    rows = measure_case(case(provider("eager", square), low, provider("coarse", rounded)), TINY)
    assert [row.dtype for row in rows] == ["fp32", "bf16", "fp32"]
    assert [row.time is None for row in rows] == [False, False, True]


def test_what_cannot_be_built_says_why() -> None:
    def build() -> Callable[..., Sequence[Tensor]]:
        raise RuntimeError("needs a GPU\nand more")

    eager, missing = measure_case(case(provider("eager", square), Provider("missing", build=build)), TINY)
    assert eager.time is not None
    assert missing.refused == "needs a GPU"


def test_what_was_built_is_closed_right_or_wrong() -> None:
    closed: list[str] = []

    def closing(name: str, run: Callable[..., Sequence[Tensor]]) -> Provider:
        return Provider(name, build=lambda: run, close=lambda run: closed.append(name))

    def unbuildable() -> Callable[..., Sequence[Tensor]]:
        raise RuntimeError("missing")

    providers = [closing("eager", square), closing("wrong", lambda x: (x,))]
    providers.append(Provider("never", build=unbuildable, close=lambda run: closed.append("never")))
    measure_case(case(*providers), TINY)
    assert sorted(closed) == ["eager", "wrong"]


def test_a_tolerance_stands_in_for_the_yardstick() -> None:
    close = provider("close", lambda x: (x @ x * 1.0001,))
    given = vars(case(provider("eager", square), close))
    for tolerance, is_right in ((None, False), (lambda dtype: 1e-3, True), (lambda dtype: 1e-5, False)):
        rows = measure_case(Case(**given | {"tolerance": tolerance}), TINY)
        assert (rows[1].time is not None) == is_right


def test_a_provider_may_have_a_right_result_of_its_own() -> None:
    def cube(x: Tensor) -> Sequence[Tensor]:
        return (x @ x @ x,)

    own = Provider("cube", build=lambda: cube, exact=cube)
    rows = measure_case(case(provider("eager", square), own, provider("without", cube)), TINY)
    assert [row.time is None for row in rows] == [False, False, True]


def test_what_cannot_be_counted_is_not() -> None:
    compiled = Provider("compiled", build=lambda: square, is_counted=False)
    rows = measure_case(Case(**vars(case(provider("eager", square), compiled)) | {"counts_ops": True}), TINY)
    assert [row.num_ops for row in rows] == [1, None]


def test_the_yardstick_may_round_as_its_number_format_does() -> None:
    # As torch comes, convolutions on a GPU round to TF32 and nothing else does.
    limits = {device: limit_of_yardstick(torch.float32, torch.device(device)) for device in ("cpu", "cuda")}
    assert limits == {"cpu": 1e-4, "cuda": 1.6e-2}
    assert limit_of_yardstick(torch.bfloat16, CPU) == 0.125


def test_the_limit_is_twice_torchs_error_and_never_below_rounding() -> None:
    assert limit_of_others(0.25, torch.bfloat16) == 0.5
    assert limit_of_others(0.25, torch.bfloat16, factor=8.0) == 2.0
    assert limit_of_others(0.0, torch.bfloat16) == torch.finfo(torch.bfloat16).eps
    assert limit_of_others(0.0, torch.float32) == 2e-6


def test_the_error_is_relative_to_the_largest_value() -> None:
    exact = torch.tensor([0.0, 4.0], dtype=torch.float64)
    assert relative_error([torch.tensor([1.0, 4.0])], [exact]) == 0.25
    assert relative_error([torch.tensor([0.0, 4.0]), torch.empty(0)], [exact, torch.empty(0)]) == 0


class FakeStopwatch:
    """Time passes only in calls, which add to `now`."""

    now = 0.0

    def start(self) -> None:
        self.began = self.now

    def stop(self) -> float:
        return self.now - self.began


def test_turns_rotate_and_short_calls_are_repeated() -> None:
    watch, order = FakeStopwatch(), []

    def call(name: str, seconds: float) -> Callable[[int], None]:
        def run(index: int) -> None:
            order.append((name, index))
            watch.now += seconds

        return run

    settings = Settings(min_rounds=2, max_rounds=2, num_warmup_calls=1, seconds_per_provider=0, min_sample_seconds=0.5)
    samples = interleave({"long": call("long", 2.0), "short": call("short", 0.25)}, watch, settings)
    assert samples["long"].time == Spread(p20=2000, p50=2000, p80=2000, num_runs=2, num_calls=1)
    assert samples["short"].time.num_calls == 2
    assert samples["short"].time.p50 == 250
    timed = order[-6:]
    assert timed == [("long", 0), ("short", 0), ("short", 1), ("short", 2), ("short", 3), ("long", 1)]


def test_the_cpu_stopwatch_measures_wall_time() -> None:
    watch = CpuStopwatch()
    watch.start()
    time.sleep(0.01)
    assert 0.009 < watch.stop() < 5


def test_percentiles() -> None:
    spread = Spread.of([5.0, 1.0, 2.0, 4.0, 3.0, 6.0])
    assert (spread.p20, spread.p50, spread.p80) == (2.0, 3.5, 5.0)
    assert Spread.of([7.0]).p80 == 7.0


def test_inputs_take_turns_beyond_the_last_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "cache_bytes", lambda device: 1000)
    sets = input_sets(case(provider("eager", square)), Settings(buffer_factor=2.0))
    assert len(sets) == 8  # 8 x 256 bytes are more than 2 x 1000
    assert len({float(x[0, 0]) for (x,) in sets}) == 8


def test_the_profile_counts_the_peak_not_the_sum() -> None:
    def call() -> Tensor:
        y = torch.ones(1000)
        for _ in range(3):
            y = y + y
        return y

    profile = profile_call(call, CPU)
    assert profile.peak_bytes == 8000
    assert {kernel.name: kernel.num_launches for kernel in profile.kernels}["aten::add"] == 3


def test_the_roofline_takes_the_slower_of_memory_and_arithmetic() -> None:
    roof = Ceilings(copy_bytes_per_second=100.0, matmul_flops_per_second={"fp32": 10.0})
    share = roofline_share(4000.0, num_bytes=100, num_flops=20, product="fp32", ceilings=roof)
    assert share == pytest.approx(0.5)
    assert roofline_share(4000.0, num_bytes=300, num_flops=20, product="fp32", ceilings=roof) == pytest.approx(0.75)
    assert roofline_share(1.0, num_bytes=1, num_flops=1, product="bf16", ceilings=roof) is None


def test_products_in_another_format_have_a_ceiling_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch comes, convolutions of float32 numbers on a GPU round to TF32 and matrix products do not."""
    matmul = torch.backends.cuda.matmul
    settings: list[str] = []
    monkeypatch.setattr(ceilings, "_matmul_flops", lambda *_, **__: settings.append(matmul.fp32_precision) or 1e9)
    monkeypatch.setattr(ceilings, "_copy_bytes", lambda *_, **__: 1e9)
    before = matmul.fp32_precision
    ceilings.measure_ceilings(CPU, formats=("fp32", "tf32"), is_quick=True)
    assert settings == [before, "tf32"]
    assert matmul.fp32_precision == before
    cuda = torch.device("cuda")
    assert [product_of_convolutions(dtype, cuda) for dtype in ("fp32", "bf16")] == ["tf32", None]
    assert product_of_convolutions("fp32", CPU) is None

    roof = Ceilings(copy_bytes_per_second=1e12, matmul_flops_per_second={"fp32": 1e9, "tf32": 4e9})
    other = Provider("exact", build=lambda: square, dtype="fp64")
    rounded = replace(case(provider("eager", square), other), product="tf32")
    row, exact = measure_case(rounded, TINY, roof)
    assert row.time is not None
    assert row.share_of_roofline == pytest.approx(1024 / 4e9 / (row.time.p50 * 1e-3))
    assert "% (tf32) of the roofline" in row_line(row, base=row)
    assert exact.product is None


def test_a_row_has_a_time_or_a_reason() -> None:
    facts = {"benchmark": "b", "case": "c", "provider": "p", "device": "cpu", "dtype": "fp32"}
    for more in ({}, {"refused": "x", "time": {"p20": 1, "p50": 1, "p80": 1, "num_runs": 1, "num_calls": 1}}):
        with pytest.raises(ValidationError, match="a row has a time or the reason"):
            Row.model_validate(facts | more)


def test_rows_are_handed_on_as_they_come_until_the_time_is_over() -> None:
    seen: list[str] = []
    cases = [case(provider("eager", square), name=name) for name in "abc"]

    def note(rows: list[Row]) -> None:
        seen.extend(row.case for row in rows)

    assert not measure_cases(cases, TINY, on_rows=note, is_over=lambda: len(seen) == 2)
    assert seen == ["a", "b"]
    assert measure_cases(cases, TINY, on_rows=note)
    assert seen == ["a", "b", "a", "b", "c"]


def test_a_provider_that_fails_in_the_profiler_has_no_time_and_the_others_do() -> None:
    calls = iter(range(1, 100))

    def fails_in_its_second_call(x: Tensor) -> Sequence[Tensor]:
        if next(calls) == 2:
            raise RuntimeError("out of memory")
        return (x @ x,)

    fine, bad = measure_case(case(provider("eager", square), provider("bad", fails_in_its_second_call)), TINY)
    assert fine.time is not None
    assert (bad.time, bad.refused) == (None, "out of memory")


@pytest.mark.parametrize("call", [1, 4])
def test_a_case_that_fails_says_why_and_the_others_go_on(call: int) -> None:
    """In its first call the yardstick fails, later the clock: neither takes the rows of other cases along."""
    rows: list[Row] = []
    calls = iter(range(1, 100))

    def fails_at(x: Tensor) -> Sequence[Tensor]:
        if next(calls) == call:
            raise RuntimeError("out of memory\nby some bytes")
        return (x @ x,)

    bad = replace(case(provider("eager", square), provider("other", square)), name="bad")
    bad = replace(bad, exact=fails_at) if call == 1 else replace(bad, providers=(provider("eager", fails_at),))
    assert measure_cases([bad, case(provider("eager", square))], TINY, on_rows=rows.extend)
    *failed, fine = rows
    assert {row.refused for row in failed} == {"out of memory"}
    assert len(failed) == len(bad.providers)
    assert fine.time is not None


def test_what_cannot_be_added_to_a_row_leaves_it_its_time() -> None:
    rows: list[Row] = []

    def finish(row: Row) -> Row:
        if row.provider == "bad":
            raise RuntimeError("killed\nfor memory")
        return row.model_copy(update={"process_peak_bytes": 1})

    measure_cases([case(provider("bad", square), provider("good", square))], TINY, on_rows=rows.extend, finish=finish)
    bad, good = rows
    assert (bad.missing, bad.process_peak_bytes, bad.refused) == ("killed", None, None)
    assert bad.time is not None
    assert (good.missing, good.process_peak_bytes) == (None, 1)
    assert row_line(bad, base=bad).endswith(", incomplete: killed")


def test_quick_is_quicker() -> None:
    for name in ("min_rounds", "max_rounds", "seconds_per_provider", "min_sample_seconds"):
        assert getattr(QUICK, name) < getattr(timing.FULL, name)


def test_calls_take_one_set_of_inputs_after_the_other() -> None:
    seen: list[int] = []

    def remember(x: Tensor) -> tuple[Tensor]:
        seen.append(x.data_ptr())
        return (x @ x,)

    measure_case(case(provider("eager", remember)), TINY)
    # The first call is compared with float64; then come warm-up and samples.
    assert len(set(seen[1:])) > 1
    assert all(now != before for before, now in zip(seen[-4:], seen[-3:], strict=False))


def test_a_sample_is_divided_by_its_calls_on_host_and_device(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = FakeStopwatch()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: watch.now / 2)

    def call(index: int) -> None:
        watch.now += 0.25

    settings = Settings(min_rounds=1, max_rounds=1, num_warmup_calls=0, seconds_per_provider=0, min_sample_seconds=1.0)
    found = interleave({"call": call}, watch, settings)["call"]
    assert (found.time.num_calls, found.time.p50) == (4, 250)
    assert found.host_milliseconds == 125


def test_ceilings_count_bytes_read_and_written_and_two_flops_per_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "_median_seconds", lambda call, device, num_samples: 0.5)
    monkeypatch.setattr(ceilings, "cache_bytes", lambda device: 1000)
    found = ceilings.measure_ceilings(CPU, formats=("fp32",), is_quick=True)
    assert found.copy_bytes_per_second == 2 * 2000 / 0.5
    assert found.matmul_flops_per_second == {"fp32": 2 * 256**3 / 0.5}


def test_the_clocks_are_those_that_nvidia_smi_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_clocks() is None
    tool.write_text("#!/bin/sh\necho '1980 MHz, 2619 MHz, 1980 MHz, 112.5 W, 41'\n")
    tool.chmod(0o755)
    read = {"clocks.sm": "1980 MHz", "clocks.mem": "2619 MHz", "clocks.max.sm": "1980 MHz"}
    assert gpu_clocks() == read | {"power.draw": "112.5 W", "temperature.gpu": "41"}
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert gpu_clocks() is None
