"""Every benchmark's quick cases run, and every provider on a CPU is right; counts of bytes and FLOPs are right."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import (
    bench_bias_act,
    bench_parallel,
    bench_spectral_norm,
    import_time,
    process_memory,
    runner,
    suite,
    train_step,
)
from benchmarks.convolutions import CPU_SHAPES, GPU_SHAPES, Shape, convolution_case, shapes
from benchmarks.harness import Case, Provider, measure_case
from benchmarks.machine import cache_bytes, require_bf16
from benchmarks.op_cases import FORWARD, LAYER_DIRECTIONS, PENALTY, run_of
from benchmarks.op_counts import Counts, count_ops
from benchmarks.parallel_worker import living_tensor_bytes
from benchmarks.record import read_record, read_records, write_record
from benchmarks.rows import Ceilings
from benchmarks.runner import Options, run_benchmarks
from benchmarks.step_providers import NAMES, steps_per_period
from benchmarks.timing import Settings
from fastgan.errors import DataError
from fastgan.ops import conv2d, conv_transpose2d
from fastgan.train.config import load_config
from fastgan.train.config_types import EngineKind
from tests.guards.tree import ROOT

CPU = torch.device("cpu")
QUICK = Options(CPU, is_quick=True)
ONCE = Settings(min_rounds=1, max_rounds=1, num_warmup_calls=1, seconds_per_provider=0, min_sample_seconds=0)


@pytest.mark.parametrize("name", [*suite.KERNELS, "data"])
def test_every_provider_is_right(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Triton's interpreter is for tests of kernels; nobody measures it.
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    cases = list(suite.TARGETS["all"][name](QUICK))
    assert cases
    for case in cases:
        rows = measure_case(case, ONCE)
        assert len(rows) >= 2
        for row in rows:
            # A kernel says why it cannot run on a CPU; the reference always can.
            assert (
                row.refused is None
                or ("cannot serve" in row.refused and row.provider not in {"eager", "fastgan reference"})
                or ("left out of a quick run" in row.refused and row.provider == "torch.compile")
            ), row
            assert row.item is not None


def test_all_runs_every_benchmark_once() -> None:
    modules = {path.stem.removeprefix("bench_") for path in (ROOT / "benchmarks").glob("bench_*.py")}
    assert suite.TARGETS["all"].keys() == modules | {"train_step"}


def test_the_step_is_measured_against_the_usual_way_in_whole_periods() -> None:
    (case,) = train_step.cases(QUICK)
    config = train_step.load_preset("digits", is_quick=True)
    assert train_step.load_preset("digits", is_quick=False) == load_config("digits")
    assert train_step.measured_config("dcgan-64", QUICK._replace(is_quick=False)).generator.channels == 16
    on_gpu = QUICK._replace(is_quick=False, device=torch.device("cuda"))
    assert train_step.measured_config("dcgan-64", on_gpu) == load_config("dcgan-64")
    # A quick period is short, and still has a step with and one without the lazy penalty.
    assert (steps_per_period(config), steps_per_period(load_config("digits"))) == (2, 8)
    assert [provider.name for provider in case.providers] == list(NAMES)
    assert NAMES[0] == "usual"
    assert case.num_items == steps_per_period(config) * config.batch_images
    assert case.counts_ops


def test_a_step_row_says_what_the_step_asks_of_torch() -> None:
    tiny = [f"{network}.channels=4" for network in ("generator", "discriminator")]
    config = load_config("digits", overrides=[*tiny, "batch_images=2", "penalties=[]"])
    case = train_step.preset_case(config, CPU)
    chosen = [provider for provider in case.providers if provider.dtype == "fp32"]
    providers = tuple(provider for provider in chosen if provider.name in {"usual", "fastgan fp32"})
    usual, ours = measure_case(Case(**{**vars(case), "providers": providers}), ONCE)
    assert usual.refused is None
    assert ours.refused is None
    assert ours.num_ops < usual.num_ops
    assert ours.num_collectives == ours.num_bytes_sent == 0


def test_the_engines_of_the_configuration_are_measured_and_communication_is_counted() -> None:
    ways = bench_parallel.ways(2, is_quick=False)
    assert ways[0] == bench_parallel.Way("single", 1)
    assert {"auto", *(way.engine for way in ways)} == {*get_args(EngineKind), "bare_ddp"}
    assert {way.stage for way in ways if way.engine == "deepspeed"} == {0, 1, 2, 3}
    assert {way.num_processes for way in ways[1:]} == {1, 2}
    assert len({way.name for way in ways}) == len(ways)
    (case,) = bench_parallel.cases(QUICK)
    single, bare, ddp = measure_case(case, ONCE)
    assert (single.num_collectives, single.num_bytes_sent) == (0, 0)
    assert ddp.num_collectives > 0
    # Beside the gradients a small message in one of four steps, which the counted one may be.
    assert 0 <= ddp.num_collectives - bare.num_collectives <= 1
    assert 0 <= ddp.num_bytes_sent - bare.num_bytes_sent < 100
    # Gradients, weights, their average and two moments of each: DDP holds all of it on every rank.
    assert 0 <= ddp.num_bytes_kept - bare.num_bytes_kept < 0.1 * bare.num_bytes_kept
    assert single.num_bytes_kept > 1_000_000
    assert ddp.num_bytes_sent > 100_000
    assert single.peak_memory_bytes is None


def test_living_tensors_are_counted_once_with_their_gradients() -> None:
    before = living_tensor_bytes()
    weight = torch.zeros(1 << 18, requires_grad=True)
    view = weight.detach()[: 1 << 17]
    message = torch.zeros(1 << 10, dtype=torch.uint8)
    assert living_tensor_bytes() - before == 1 << 20
    (weight * 2).sum().backward()
    assert living_tensor_bytes() - before == 2 << 20
    del weight, view, message


def test_processes_that_do_not_come_up_say_why() -> None:
    with pytest.raises(RuntimeError, match=r"^command line: parallel\.engine=dpd .*did you mean 'ddp'"):
        bench_parallel.Engine(bench_parallel.Way("dpd", 1), QUICK)


def test_long_periods_are_refused() -> None:
    config = load_config("digits", overrides=["penalties=[{kind: r1, weight: 1.0, every: 17}]"])
    with pytest.raises(ValueError, match="repeat every 17 updates"):
        steps_per_period(config)


@pytest.mark.parametrize("shape", [Shape(2, 4, 3, 8), Shape(2, 4, 3, 8, kernel_size=3, output_padding=1)])
@pytest.mark.parametrize("mirrored", [False, True])
def test_shapes_flops_and_bytes(shape: Shape, mirrored: bool) -> None:
    shape = shape.mirrored if mirrored else shape
    inputs = shape.make_inputs(0, dtype=torch.float32, device=CPU)
    padding = {"stride": shape.stride, "padding": shape.padding}
    if shape.transposed:
        padding["output_padding"] = shape.output_padding
    op = conv_transpose2d if shape.transposed else conv2d
    for direction in LAYER_DIRECTIONS:
        with FlopCounterMode(display=False) as counter:
            outputs = run_of(lambda *tensors: op(*tensors, **padding), direction)(*inputs)
        # The second derivative of an output padding multiplies the padding, too.
        if direction != PENALTY or shape.kernel_size == 4:
            assert counter.get_total_flops() == shape.num_flops(direction)
        of_x = direction == PENALTY
        size = (shape.in_channels, shape.resolution) if of_x else (shape.out_channels, shape.out_resolution)
        assert list(outputs[0].shape[1:]) == [size[0], size[1], size[1]]
    numbers = [x.numel() for x in inputs]
    assert shape.num_bytes(FORWARD, torch.bfloat16) == 2 * (numbers[0] + numbers[1] + numbers[3])


def test_the_convolution_goes_the_other_way() -> None:
    up = Shape(16, 64, 32, 512)
    assert up.name == "N16 64 to 32, 512 to 1024 px, k4 s2"
    assert up.mirrored.name == "N16 32 to 64, 1024 to 512 px, k4 s2"
    assert up.mirrored.num_flops(FORWARD) == up.num_flops(FORWARD)


def test_a_gpu_gets_all_kernel_sizes_strides_and_batches_and_a_cpu_smaller_shapes() -> None:
    gpu = list(shapes(Options(torch.device("cuda")), transposed=True))
    assert {shape.kernel_size for shape in gpu} == {3, 4}
    assert gpu[: len(GPU_SHAPES)] == list(GPU_SHAPES)
    assert {shape.stride for shape in gpu} == {1, 2}
    assert {shape.batch for shape in gpu if shape.resolution == 64} == {16, 32, 64}
    names = [case.name for case in bench_bias_act.cases(Options(torch.device("cuda")))]
    assert len(names) == len(set(names))
    assert {f"N{batch} 128 channels, 128 px, {FORWARD}" for batch in (16, 32, 64)} <= set(names)
    assert list(shapes(Options(CPU), transposed=True)) == list(CPU_SHAPES)


def test_the_penalty_of_a_layer_is_that_of_autograd() -> None:
    x, weight, _, cotangent = Shape(2, 3, 4, 4).make_inputs(0, dtype=torch.float64, device=CPU)
    got = run_of(lambda x, weight: conv_transpose2d(x, weight, stride=2, padding=1).tanh(), PENALTY)(
        x, weight, cotangent
    )
    leaf = cotangent.clone().requires_grad_()
    y = torch.conv_transpose2d(x, weight, None, 2, 1).tanh()
    (gradient,) = torch.autograd.grad(y, x, leaf, create_graph=True)
    torch.testing.assert_close(got, (gradient, *torch.autograd.grad(gradient.square().sum(), (leaf, weight))))


def test_convolutions_on_a_gpu_are_held_against_products_as_they_form_them() -> None:
    on_gpu = QUICK._replace(device=torch.device("cuda"))
    for dtype, product in (("fp32", "tf32"), ("bf16", None)):
        case = convolution_case(GPU_SHAPES[0], FORWARD, on_gpu, dtype=dtype)
        assert case.product == product
        assert (product or dtype) in runner._formats(on_gpu)
    assert convolution_case(GPU_SHAPES[0], FORWARD, QUICK, dtype="fp32").product is None
    assert "tf32" not in runner._formats(QUICK)


@pytest.fixture
def known_ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ceilings that take no time."""
    ceilings = Ceilings(copy_bytes_per_second=1e9, matmul_flops_per_second={"fp32": 1e9})
    monkeypatch.setattr(runner, "measure_ceilings", lambda *_, **__: ceilings)


@pytest.mark.usefixtures("known_ceilings")
def test_times_on_a_cpu_are_said_to_mean_nothing_for_gpus(capsys: pytest.CaptureFixture[str]) -> None:
    runner.measure({"bias_act": lambda options: iter(())}, QUICK)
    assert "measured on a CPU: these times mean nothing for GPUs" in capsys.readouterr().out


def test_a_wrong_spectral_norm_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    case = bench_spectral_norm.spectral_norm_case("two", ((4, 6), (3, 5)), QUICK)
    provider = Provider("late", build=lambda: _iterated_twice(case))
    rows = measure_case(Case(**{**vars(case), "providers": (*case.providers, provider)}), ONCE)
    times = {row.provider: row.time for row in rows}
    assert times["torch, real and fake pass"] is not None
    assert times["fastgan reference"] is not None
    assert times["late"] is None


def _spectral_norm_of_two() -> Case:
    """Without fastgan's own, of which Triton's interpreter may be one."""
    case = bench_spectral_norm.spectral_norm_case("two", ((4, 6), (3, 5)), QUICK)
    return replace(case, providers=case.providers[:1])


def _iterated_twice(case: Case) -> bench_spectral_norm.Run:
    run = bench_spectral_norm.fastgan_run(case.make_inputs(0), impl="reference")
    run()
    return run


def test_import_time_starts_an_interpreter_for_every_program(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = {"nothing": ["-c", "pass"], "a failure": ["-c", "raise SystemExit(3)"]}
    monkeypatch.setattr(import_time, "PROGRAMS", {"nothing": starts["nothing"]})
    (row,) = import_time.measure(is_quick=True).rows
    assert row.time is not None
    monkeypatch.setattr(import_time, "PROGRAMS", starts)
    with pytest.raises(subprocess.CalledProcessError, match="exit status 3"):
        import_time.measure(is_quick=True)


def test_the_peak_of_a_process_is_its_own(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmHWM:\t   1024 kB\n")
    assert process_memory.own_peak_bytes(status) == 1 << 20
    status.write_text("Name:\tpython\n")
    with pytest.raises(ValueError, match="no line VmHWM"):
        process_memory.own_peak_bytes(status)
    program = (
        "from benchmarks.process_memory import own_peak_bytes as peak; "
        "a = peak(); x = bytearray(64 << 20); print(peak() - a)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) > 60 << 20


def test_a_process_without_a_peak_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_memory, "ROOT", tmp_path)
    (tmp_path / "killed.py").write_text("import os; os.kill(os.getpid(), 9)")
    (tmp_path / "failing.py").write_text("raise SystemExit('why')")
    with pytest.raises(RuntimeError, match=r"^killed --x was ended by SIGKILL$"):
        process_memory.peak_bytes_of("killed", ["--x"])
    with pytest.raises(RuntimeError, match=r"^failing failed: why$"):
        process_memory.peak_bytes_of("failing", [])


def test_ops_and_new_bytes_are_counted() -> None:
    x = torch.ones(10)
    assert count_ops(lambda: (x + 1).view(2, 5).mul_(2)) == Counts(3, 40, 0, 0)


def test_bf16_needs_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    for flags, refused in (([], True), (["amx_bf16"], False)):
        monkeypatch.setattr("benchmarks.machine.cpu_facts", lambda flags=flags: {"bf16_instructions": flags})
        if refused:
            with pytest.raises(RuntimeError, match="no bf16 instructions"):
                require_bf16(CPU)
        else:
            require_bf16(CPU)
    require_bf16(torch.device("cuda"))


def test_the_last_cache_has_a_size() -> None:
    assert 1 << 18 <= cache_bytes(CPU) <= 1 << 32


def test_a_run_ends_with_a_record_and_a_comparison(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmarks = {"spectral_norm": suite.KERNELS["spectral_norm"]}
    clocks = iter(({"clocks.sm": "210 MHz"}, {"clocks.sm": "1980 MHz"}, None, None))
    monkeypatch.setattr(runner, "gpu_clocks", lambda: next(clocks))
    first = run_benchmarks("bench-x", benchmarks, QUICK._replace(out=tmp_path), module="suite")
    read = read_record(first).configuration["gpu_clocks_before_and_after"]
    assert read == [{"clocks.sm": "210 MHz"}, {"clocks.sm": "1980 MHz"}]
    second = run_benchmarks("bench-x", benchmarks, QUICK._replace(out=tmp_path, compare=first), module="suite")
    assert first != second
    record = read_record(second)
    assert record.configuration["benchmarks"] == ["spectral_norm"]
    assert record.configuration["quick"] is True
    assert record.rows().ceilings is not None
    output = capsys.readouterr().out
    assert output.count("spectral_norm: quick, 3 layers, fastgan reference") == 3


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(DataError, match=r"^--out .* cannot be written: .*; choose another folder$"):
            run_benchmarks(
                "bench-x", {"none": lambda options: pytest.fail("measured")}, QUICK._replace(out=out), module=""
            )


@pytest.mark.usefixtures("known_ceilings")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_a_record_of_what_has_been_measured(tmp_path: Path, number: signal.Signals) -> None:
    def cases(options: Options) -> Iterator[Case]:
        yield _spectral_norm_of_two()
        os.kill(os.getpid(), number)
        yield from suite.KERNELS["conv2d"](options)

    before = signal.getsignal(number)
    path = run_benchmarks("bench-x", {"both": cases}, QUICK._replace(out=tmp_path), module="suite")
    record = read_record(path)
    assert {row.benchmark for row in record.rows().rows} == {"spectral_norm"}
    assert record.configuration["complete"] is False
    assert signal.getsignal(number) == before


def test_a_signal_while_the_ceilings_are_measured_leaves_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runner, "measure_ceilings", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    # Else the whole run of tests would end here if the signal was not waited for.
    before = signal.signal(signal.SIGTERM, lambda *_: pytest.fail("nothing waited for the signal"))
    monkeypatch.setattr(sys, "argv", ["suite", "conv2d", "--quick", "--device", "cpu", "--out", str(tmp_path)])
    try:
        assert suite.main() == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    (record,) = read_records(tmp_path).values()
    assert (record.rows().rows, record.rows().ceilings) == ((), None)
    assert record.configuration["complete"] is False
    assert "note: no case has been measured\n" in capsys.readouterr().out


@pytest.mark.usefixtures("known_ceilings")
def test_an_error_leaves_a_record_and_wrong_rows_are_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def cases(options: Options) -> Iterator[Case]:
        case = _spectral_norm_of_two()
        yield replace(case, providers=(*case.providers, Provider("late", build=lambda: _iterated_twice(case))))
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run_benchmarks("bench-x", {"one": cases}, QUICK._replace(out=tmp_path), module="suite")
    (record,) = read_records(tmp_path).values()
    assert [row.refused is None for row in record.rows().rows] == [True, False]
    assert record.configuration["complete"] is False
    assert "note: 1 of 2 rows have no time, because their result is wrong\n" in capsys.readouterr().out


def test_a_record_without_rows_is_not_compared_with(tmp_path: Path) -> None:
    path = write_record("digits_quality", {"x": 1}, configuration={}, arguments=[], records_dir=tmp_path)
    with pytest.raises(DataError, match=r"^--compare .* holds no rows; give a record that `fastgan bench` wrote$"):
        run_benchmarks("x", {}, QUICK._replace(out=tmp_path, compare=path), module="")


@pytest.mark.usefixtures("known_ceilings")
def test_no_case_begins_after_the_given_time(tmp_path: Path) -> None:
    options = QUICK._replace(out=tmp_path, seconds=0.0)
    path = run_benchmarks("bench-x", {"conv2d": suite.KERNELS["conv2d"]}, options, module="suite")
    record = read_record(path)
    assert record.rows().rows == ()
    assert record.configuration["complete"] is False
