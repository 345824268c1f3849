"""The numbers of README.md are those of the newest records, and no quick record counts."""

import datetime
from pathlib import Path
from typing import Any

import pytest

from benchmarks.readme_numbers import NOTHING, README, numbers, replace_block
from benchmarks.record import RECORDS_DIR, Record, read_records
from benchmarks.rows import Figures, Row, Spread
from fastgan.errors import DataError
from fastgan.train.environment import environment


def row(benchmark: str, case: str, provider: str, milliseconds: float, **facts: Any) -> Row:
    time = Spread(p20=0.9 * milliseconds, p50=milliseconds, p80=1.1 * milliseconds, num_runs=9, num_calls=1)
    kind = {"device": "cpu", "dtype": "fp32"} | facts
    return Row(benchmark=benchmark, case=case, provider=provider, time=time, **kind)


def record(*rows: Row, day: int = 1, quick: bool = False, benchmark: str = "bench-all", **figures: Any) -> Record:
    return Record(
        benchmark=benchmark,
        date=datetime.datetime(2026, 1, day, tzinfo=datetime.UTC),
        command="python -m benchmarks.suite all",
        configuration={"quick": quick},
        figures=figures or Figures(rows=rows).model_dump(mode="json", exclude_none=True),
        environment=environment() | {"git_commit": "0123456789abcdef"},
    )


def steps(usual: float, fastgan: float) -> tuple[Row, ...]:
    facts = {"num_items": 64, "item": "images", "process_peak_bytes": 300 << 20}
    return row("train_step", "digits", "usual", usual, **facts), row("train_step", "digits", "ours", fastgan, **facts)


def test_the_numbers_in_the_readme_are_those_of_the_records() -> None:
    text = README.read_text(encoding="utf-8")
    remedy = "the numbers of README.md differ from the records; run: python -m benchmarks.readme_numbers"
    assert text == replace_block(text, numbers(read_records(RECORDS_DIR))), remedy


def test_the_newest_record_that_is_not_quick_counts() -> None:
    records = {
        Path("old.json"): record(*steps(50, 40)),
        Path("new.json"): record(*steps(40, 20), day=2),
        Path("quick.json"): record(*steps(1, 1), day=3, quick=True),
    }
    text = numbers(records)
    assert "| usual | 1,600 | 1,455 to 1,778 | 1.00x | 300.0 MiB |" in text
    assert "| ours | 3,200 | 2,909 to 3,556 | 2.00x | 300.0 MiB |" in text
    assert "[new](benchmarks/records/new.json)" in text
    assert "commit 0123456789" in text
    assert "old" not in text
    assert "quick" not in text


def test_a_variant_is_told_by_what_it_changes() -> None:
    shown = row("train_step", "digits-sn, 32 px, batch 32", "usual", 50, num_items=64, item="images")
    text = numbers({Path("new.json"): record(shown)})
    assert "Training steps, digits-sn (digits with `discriminator.spectral_norm=true`), 32 px, batch 32:" in text


def test_of_an_op_the_fastest_implementation_is_shown() -> None:
    rows = [
        row("conv2d", "small", "eager", 5.0),
        row("conv2d", "small", "eager, contiguous", 4.0),
        row("conv2d", "small", "fastgan reference", 1.0),
        row("conv2d", "small", "fastgan slow", 3.0),
        row("conv2d", "small", "fastgan fast", 2.0),
    ]
    text = numbers({Path("a.json"): record(*rows)})
    assert "| conv2d | small, fp32 | eager, contiguous | fast | 4 ms | 2 ms | 2.00x |" in text


def test_an_op_is_compared_within_one_number_format_and_one_kind_of_device() -> None:
    rows = [
        row("conv2d", "small", "usual", 4.0),
        row("conv2d", "small", "fastgan double fp32", 3.0),
        row("conv2d", "small", "fastgan double bf16", 1.0, dtype="bf16"),
    ]
    here, gpu = record(*rows), record(*(r.model_copy(update={"device": "cuda"}) for r in rows), day=2)
    gpu = gpu.model_copy(update={"environment": gpu.environment | {"git_commit": f"{'f' * 40}-dirty"}})
    text = numbers({Path("a.json"): here, Path("b.json"): gpu})
    assert text.count("| conv2d | small, fp32 | usual | double fp32 | 4 ms | 3 ms | 1.33x |") == 2
    assert "bf16 |" not in text
    first, second = text.split("Single ops and losses")[1:]
    assert "a.json" in first
    assert "commit 0123456789)" in first
    assert "b.json" in second
    assert "commit ffffffffff-dirty)" in second


def test_the_reference_alone_is_not_compared_with_itself() -> None:
    rows = [row("conv2d", "small", "eager", 4.0), row("conv2d", "small", "fastgan reference", 1.0)]
    assert numbers({Path("a.json"): record(*rows)}) == NOTHING


def test_other_records_are_told_in_words() -> None:
    starts = {"nothing": 10, "import fastgan": 15, "fastgan --help": 200, "import torch": 1500}
    rows = [row("import_time", "a new interpreter", name, ms) for name, ms in starts.items()]
    facts = {
        "num_generated": 5000,
        "num_real": 5000,
        "images_seen": 96000,
        "frechet_distance": 1.234,
        "num_half": 2500,
        "frechet_distance_half": 1.5,
        "frechet_floor_half": 0.17,
    }
    text = numbers(
        {
            Path("a.json"): record(*rows, benchmark="import_time"),
            Path("b.json"): record(benchmark="digits_quality", **facts),
        }
    )
    assert "takes 5 ms on top of the 10 ms of Python itself" in text
    assert "after 96,000 images: 1.23." in text
    assert "it is 1.50; the floor, real from other real ones, 0.17." in text


def test_number_formats_are_compared_by_their_runs() -> None:
    runs = [{"precision": name, "frechet_distance": value} for name in ("fp32", "bf16") for value in (3.21, 4.0)]
    found = record(benchmark="wgan_gp_precision", runs=runs)
    text = numbers({Path("a.json"): found.model_copy(update={"configuration": {"total_images": 48000}})})
    assert "after 48,000 images" in text
    assert "3.2, 4.0 in fp32 and 3.2, 4.0 in bf16" in text


def test_the_error_of_the_simulator_is_told() -> None:
    runs = [
        {"num_ranks": ranks, "measured": 40.0, "predicted": predicted, "error": predicted / 40 - 1}
        for ranks, predicted in ((1, 38.0), (2, 44.0))
    ]
    text = numbers({Path("a.json"): record(benchmark="calibrate_simulator", runs=runs)})
    assert "38.0 ms for 40.0 ms on 1, 44.0 ms for 40.0 ms on 2 ranks" in text
    assert "errors -5%, +10%." in text


def test_the_block_is_replaced_and_nothing_else() -> None:
    text = "a\n<!-- numbers -->\nold\n<!-- /numbers -->\nb\n"
    assert replace_block(text, "new") == "a\n<!-- numbers -->\nnew\n<!-- /numbers -->\nb\n"
    for broken in ("", "<!-- numbers -->", "<!-- /numbers --><!-- numbers -->", text + text):
        with pytest.raises(DataError, match="each once"):
            replace_block(broken, "new")
