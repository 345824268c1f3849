"""Records are read back as they were written, compared row by row, and shown as tables and pictures."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from benchmarks import plots, report
from benchmarks.compare import compare_rows, environment_differences, verdict
from benchmarks.plots import plot_roofline
from benchmarks.record import read_record, read_records, write_record
from benchmarks.report import table, write_report
from benchmarks.rows import Ceilings, Figures, Row, Spread
from benchmarks.text import format_milliseconds, row_line
from fastgan.errors import DataError
from tests.guards.tree import ROOT

PNG = b"\x89PNG"


def row(provider: str = "eager", *, p20: float = 1.0, p50: float = 2.0, p80: float = 3.0, **facts: Any) -> Row:
    time = None if "refused" in facts else Spread(p20=p20, p50=p50, p80=p80, num_runs=5, num_calls=1)
    return Row(benchmark="b", case="c", provider=provider, device="cpu", dtype="fp32", time=time, **facts)


def write(folder: Path, *rows: Row, ceilings: Ceilings | None = None, **configuration: Any) -> Path:
    figures = Figures(rows=rows, ceilings=ceilings).model_dump(mode="json", exclude_none=True)
    return write_record(
        "bench-all", figures, configuration=configuration, arguments=["all"], records_dir=folder, module="suite"
    )


def test_a_record_is_read_back(tmp_path: Path) -> None:
    path = write(tmp_path, row(), row("other", refused="needs a GPU"), quick=True)
    record = read_record(path)
    assert record.rows().rows == (row(), row("other", refused="needs a GPU"))
    assert record.command == "python -m benchmarks.suite all"
    assert record.configuration == {"quick": True}
    assert list(read_records(tmp_path)) == [path]


def git(root: Path, *arguments: str) -> str:
    """What git says."""
    command = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def edited_records(root: Path) -> list[str]:
    """Records whose content differs from what was committed first, in the history or in the working tree."""
    # A new record may look like one that goes with the same commit: to git a rename.
    how = ("--no-renames", "--diff-filter=MT", "--name-only")
    history = git(root, "log", "-m", "--format=", *how, "--", "benchmarks/records")
    return sorted({*history.splitlines(), *git(root, "diff", *how, "HEAD", "--", "benchmarks/records").splitlines()})


def test_a_committed_record_is_never_edited() -> None:
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("no git, or a tree without its history")
    if git(ROOT, "rev-parse", "--is-shallow-repository") != "false":
        pytest.skip("this clone is shallow: its history has an end")
    assert edited_records(ROOT) == [], "a record is never edited; measure again, and commit the new record beside it"


def test_an_edited_record_is_found(tmp_path: Path) -> None:
    records = tmp_path / "benchmarks" / "records"
    records.mkdir(parents=True)
    git(tmp_path, "init")

    def commit(**texts: str) -> None:
        for name, text in texts.items():
            (records / f"{name}.json").write_text(text)
        git(tmp_path, "add", "--all")
        git(tmp_path, "commit", "--message", "more")

    commit(a="1\n2\n3\n", b="1", c="1")
    (records / "a.json").unlink()
    commit(like_a="1\n2\n4\n")
    assert edited_records(tmp_path) == []
    commit(b="2")
    commit(b="1")
    (records / "c.json").write_text("2")
    assert edited_records(tmp_path) == ["benchmarks/records/b.json", "benchmarks/records/c.json"]


def test_a_record_of_another_kind_has_no_rows(tmp_path: Path) -> None:
    path = write_record("digits_quality", {"x": 1}, configuration={}, arguments=[], records_dir=tmp_path)
    assert read_record(path).rows().rows == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read: No such file"),
        ("{", "the file: Invalid JSON"),
        ("\N{LATIN SMALL LETTER E WITH ACUTE}", "the file: Invalid JSON"),
        ('{"benchmark": "b"}', "date: Field required"),
    ],
)
def test_what_is_no_record_is_refused_in_one_line(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "a.json"
    if text is not None:
        path.write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match=message) as caught:
        read_record(path)
    assert "\n" not in str(caught.value)


def test_a_row_with_a_missing_fact_is_refused(tmp_path: Path) -> None:
    path = write_record("bench-all", {"rows": [{"case": "c"}]}, configuration={}, records_dir=tmp_path)
    with pytest.raises(DataError, match=r"is not a record: rows\.0\.benchmark: Field required"):
        read_record(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda facts: facts["environment"]["cpu"].pop("vectors"), r"cpu\.vectors: Field required"),
        (lambda facts: facts["environment"].pop("packages"), "packages: Field required"),
        # Records are put in the order of their dates.
        (lambda facts: facts.update(date="2026-11-23T10:00:00"), "date: Input should have timezone info"),
    ],
)
def test_a_record_that_a_report_could_not_show_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    path = write(tmp_path, row())
    facts = json.loads(path.read_text())
    change(facts)
    path.write_text(json.dumps(facts))
    with pytest.raises(DataError, match=f"is not a record: {message}"):
        read_records(tmp_path)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ({"p20": 3.1, "p50": 3.2, "p80": 3.3}, "SLOWER"),
        ({"p20": 2.9, "p50": 3.2, "p80": 3.3}, "the same"),
        ({"p20": 0.7, "p50": 0.8, "p80": 0.9}, "faster"),
        ({"p20": 0.7, "p50": 0.8, "p80": 1.1}, "the same"),
    ],
)
def test_slower_means_by_more_than_the_spread(now: dict[str, float], expected: str) -> None:
    assert verdict(row(), row(**now)) == expected


def test_rows_are_compared_by_their_key_worst_first() -> None:
    before = [row("a"), row("b"), row("c"), row("gone"), row("new", refused="missing")]
    now = [
        row("a"),
        row("b", p20=8, p50=9, p80=10),
        row("c", refused="wrong result"),
        row("new"),
        row("unknown"),
    ]
    lines = compare_rows(before, now)
    assert [line.split()[0] for line in lines] == ["LOST", "SLOWER", "the", "new", "of"]
    assert lines[1] == "SLOWER      b: c, b, fp32: 2 ms to 9 ms, 0.22x"
    assert lines[-1] == "of the earlier record, 1 of 5 rows are not in this one"


def test_another_machine_is_named(tmp_path: Path) -> None:
    record = read_record(write(tmp_path, row(), quick=False))
    other = record.model_copy(
        update={
            "environment": record.environment | {"packages": {"torch": "1.0"}},
            "configuration": {"quick": True},
        }
    )
    assert list(environment_differences(record, record)) == []
    found = "\n".join(environment_differences(other, record))
    assert "torch was 1.0 in the earlier record" in found
    assert "quick was True" in found


def test_a_table_shows_ratios_and_reasons() -> None:
    rows = [
        row(num_items=4, item="images"),
        row("twice", p20=0.9, p50=1.0, p80=1.1),
        row("none", refused="needs a GPU"),
    ]
    lines = table(rows)
    assert lines[2].startswith("| eager | fp32 | 2 ms | 1 ms to 3 ms | 5 | 2,000 images/s | 1.00x |")
    assert "| twice | fp32 | 1 ms | 0.9 ms to 1.1 ms | 5 |  | 2.00x |" in lines[3]
    assert lines[4].startswith("| none | fp32 | needs a GPU |")
    assert len({line.count("|") for line in lines}) == 1


def test_a_report_has_tables_and_pictures(tmp_path: Path) -> None:
    ceilings = Ceilings(copy_bytes_per_second=1e9, matmul_flops_per_second={"fp32": 1e12})
    path = write(tmp_path, row(num_bytes=8, num_flops=16), row("none", refused="needs a GPU"), ceilings=ceilings)
    page = write_report({path: read_record(path)}, tmp_path / "report")
    text = page.read_text(encoding="utf-8")
    assert "### b: c" in text
    assert "copy 1 GB/s" in text
    pictures = sorted(path.name for path in (tmp_path / "report").glob("*.png"))
    assert pictures == [f"{path.stem}-roofline.png", f"{path.stem}.png"]
    for name in pictures:
        assert f"![{name}]({name})" in text
        assert (tmp_path / "report" / name).read_bytes().startswith(PNG)


def test_records_of_one_name_and_many_cases_have_pictures_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "_CASES_PER_PICTURE", 2)
    drawn: list[list[str]] = []
    monkeypatch.setattr(plots, "plot_bars", lambda rows: drawn.append([row.case for row in rows]) or PNG)
    rows = [row(name).model_copy(update={"case": case}) for case in "abcde" for name in ("eager", "other")]
    paths = [write(tmp_path / folder, *rows) for folder in ("one", "two")]
    write_report({path: read_record(path) for path in paths}, tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    stem = paths[0].stem
    names = [f"{start}{end}.png" for start in (stem, f"{stem}~2") for end in ("", "-bars2", "-bars3")]
    assert [line for line in text.splitlines() if line.startswith("![")] == [f"![{name}]({name})" for name in names]
    assert {path.name for path in (tmp_path / "report").glob("*.png")} == set(names)
    assert drawn == [list("aabb"), list("ccdd"), list("ee")] * 2


def test_only_pictures_older_than_their_record_are_drawn_again(tmp_path: Path) -> None:
    ceilings = Ceilings(copy_bytes_per_second=1e9, matmul_flops_per_second={"fp32": 1e12})
    paths = [write(tmp_path, row(num_bytes=8, num_flops=16), ceilings=ceilings), write(tmp_path, row("other"))]
    out = tmp_path / "report"

    def drawn(*, redraw: bool) -> list[str]:
        before = {path: path.stat().st_mtime_ns for path in out.glob("*.png")}
        write_report({path: read_record(path) for path in paths}, out, redraw=redraw)
        text = (out / "report.md").read_text(encoding="utf-8")
        assert text.count("![") == 3
        return sorted(path.name for path in out.glob("*.png") if path.stat().st_mtime_ns != before.get(path))

    one, two = (path.stem for path in paths)
    both = sorted([f"{one}-roofline.png", f"{one}.png", f"{two}.png"])
    assert drawn(redraw=False) == both
    assert drawn(redraw=False) == []
    now = (out / f"{two}.png").stat().st_mtime_ns + 1
    os.utime(paths[1], ns=(now, now))
    assert drawn(redraw=False) == [f"{two}.png"]
    assert drawn(redraw=True) == both


def test_the_largest_picture_can_be_drawn() -> None:
    """Agg draws no more than 65,535 pixels. No case has more than 12 providers."""
    rows = [row(f"provider {n}").model_copy(update={"case": case}) for case in "ab" for n in range(12)]
    height = int.from_bytes(plots.plot_bars(rows)[20:24], "big")
    assert report._CASES_PER_PICTURE / 2 * height < 1 << 16


def test_without_rows_there_is_no_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_record("digits_quality", {"x": 1}, configuration={}, arguments=[], records_dir=tmp_path)
    with pytest.raises(DataError, match="no record holds rows"):
        write_report({path: read_record(path)}, tmp_path / "report")
    monkeypatch.setattr("sys.argv", ["report", str(path), "--out", str(tmp_path / "report")])
    assert report.main() == DataError.exit_code
    assert "no record holds rows; give records that `fastgan bench` wrote" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


def test_a_roofline_needs_bytes_flops_and_ceilings() -> None:
    ceilings = Ceilings(copy_bytes_per_second=1e9, matmul_flops_per_second={"fp32": 1e12})
    assert plot_roofline(Figures(rows=(row(),), ceilings=ceilings)) is None
    assert plot_roofline(Figures(rows=(row(num_bytes=8, num_flops=16),))) is None


def test_a_roofline_shows_the_ceilings_of_its_rows() -> None:
    ceilings = Ceilings(
        copy_bytes_per_second=1e9, matmul_flops_per_second=dict.fromkeys(["bf16", "fp32", "tf32"], 1e12)
    )
    rows = [row(num_bytes=8, num_flops=16), row("convolution", num_bytes=8, num_flops=16, product="tf32")]
    axes = Figure().subplots()
    plots._draw_ceilings(axes, ceilings, rows)
    assert [line.get_label() for line in axes.lines] == ["measured ceilings, fp32", "measured ceilings, tf32"]


@pytest.mark.parametrize(
    ("milliseconds", "text"), [(0.0123, "12.3 µs"), (0.5, "0.5 ms"), (12.345, "12.3 ms"), (2345.0, "2.35 s")]
)
def test_times_have_three_digits_and_a_unit(milliseconds: float, text: str) -> None:
    assert format_milliseconds(milliseconds) == text


def test_a_line_says_what_a_row_says() -> None:
    fast = row("fast", p20=0.9, p50=1.0, p80=1.1, peak_memory_bytes=1 << 20)
    assert row_line(fast, base=row()) == "b: c, fast, fp32: 1 ms (0.9 ms to 1.1 ms), 2.00x of eager, 1.0 MiB"
    assert row_line(row("x", refused="no"), base=row()) == "b: c, x, fp32: no"
    part = row("part", p20=0.9, p50=1.0, p80=1.1, is_compared=False)
    assert row_line(part, base=row()) == "b: c, part, fp32: 1 ms (0.9 ms to 1.1 ms)"
