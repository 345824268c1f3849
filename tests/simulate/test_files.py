"""Records in; traces and pictures out."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from fastgan.errors import ConfigError
from fastgan.schedule import Alternate, Collective, Joint, LazyPenalty, Policy, Split
from fastgan.simulate import chrome_trace, parts_from_record, simulate, unit_model
from fastgan.simulate.picture import timeline
from fastgan.simulate.run import NUM_TRACED_STEPS

POLICIES = [
    Alternate(batch_images=8, num_ranks=4, penalties=(LazyPenalty("r1", 1.0, 2),)),
    Joint(batch_images=8, num_ranks=4),
    Split(batch_images=8, num_ranks=4, discriminator_ranks=2),
]


def row(part: str, batch: int, milliseconds: float, dtype: str = "fp32") -> dict[str, object]:
    time = {"p50": milliseconds}
    case = f"digits, 32 px, batch {batch}"
    return {
        "benchmark": "step_parts", "case": case, "provider": part, "dtype": dtype, "time": time, "num_items": batch,
    }  # fmt: skip


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text(json.dumps({"figures": {"rows": rows}}))
    return path


def digits_rows(dtype: str = "fp32") -> list[dict[str, object]]:
    """milliseconds = a + b batch, for batches of 10 and 30."""
    lines = {
        "generate": (2.0, 0.1),
        "judge_real": (1.0, 0.2),
        "update discriminator": (7.0, 1.0),
        "update generator": (9.0, 0.8),
        "update discriminator, r1": (12.0, 2.0),
        "update joint": (11.0, 1.6),
        "apply discriminator": (3.0, 0.0),
        "apply generator": (4.0, 0.0),
    }
    return [row(name, batch, a + b * batch, dtype) for name, (a, b) in lines.items() for batch in (10, 30)]


def test_parts_of_a_record_are_lines_through_two_batches(tmp_path: Path) -> None:
    parts = parts_from_record(write(tmp_path / "record.json", digits_rows()), preset="digits")
    expected = {
        "generate": (2.0, 0.1),
        "judge_real": (1.0, 0.2),
        "learn discriminator": (6.0, 0.8),
        "learn generator": (7.0, 0.7),
        "learn joint": (8.0, 1.3),
        "penalty r1": (5.0, 1.0),
        "apply discriminator": (3.0, 0.0),
        "apply generator": (4.0, 0.0),
    }
    assert parts.keys() == expected.keys()
    for name, (fixed, per_image) in expected.items():
        assert parts[name] == pytest.approx((fixed / 1e3, per_image / 1e3), abs=1e-12), name


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "does not hold the parts of digits at two batch sizes, but of nothing"),
        (digits_rows()[:1], "does not hold the parts of digits at two batch sizes, but of digits"),
        (digits_rows()[:2], "lacks judge_real, update discriminator, update generator"),
        (digits_rows() + digits_rows("bf16"), "holds digits in bf16 and fp32; choose with precision="),
    ],
)
def test_a_record_without_the_parts_is_refused(rows: list[dict[str, object]], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        parts_from_record(write(tmp_path / "record.json", rows), preset="digits")


def test_a_record_of_two_formats_is_read_in_the_one_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "record.json", digits_rows() + digits_rows("bf16"))
    assert parts_from_record(path, preset="digits", dtype="bf16")["generate"] == pytest.approx((2e-3, 1e-4))


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{",
        '{"figures": {}}',
        '{"figures": {"rows": 5}}',
        '{"figures": {"rows": [1]}}',
        json.dumps({"figures": {"rows": [{"benchmark": "step_parts", "time": {"p50": 1.0}}]}}),
        json.dumps({"figures": {"rows": [row("generate", 10, 1.0) | {"time": {"p50": "fast"}}]}}),
    ],
)
def test_a_file_that_is_no_record_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match="is not a record of fastgan bench"):
        parts_from_record(path, preset="digits")
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        parts_from_record(tmp_path / "none.json", preset="digits")


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_a_trace_has_every_computation_and_collective_on_its_stream(policy: Policy) -> None:
    found = simulate(policy, unit_model(policy), num_steps=3)
    events = json.loads(chrome_trace(found.spans, found.segments))["traceEvents"]
    spans = [event for event in events if event["ph"] == "X"]
    assert len(spans) == len(found.spans)
    names = {event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert len(names) == len(found.segments)
    for pid in {event["pid"] for event in spans}:
        for tid in (0, 1):
            mine = sorted((e["ts"], e["ts"] + e["dur"]) for e in spans if (e["pid"], e["tid"]) == (pid, tid))
            assert all(end <= begin + 1e-3 for (_, end), (begin, _) in pairwise(mine))


@pytest.mark.parametrize(("file_format", "begin"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_a_timeline_is_a_picture(policy: Policy, file_format: str, begin: bytes) -> None:
    found = simulate(policy, unit_model(policy), num_steps=3)
    picture = timeline(
        found.spans, found.segments, title="$t", unit="passes", units_per_second=1.0, file_format=file_format
    )
    assert picture.startswith(begin)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_all_of_a_picture_is_explained_and_inside(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    figures, ordinary = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: figures.append(self) or ordinary(self, *a, **k))
    found = simulate(policy, unit_model(policy), num_steps=3)
    title = "; ".join([str(policy)] * 3)
    timeline(found.spans, found.segments, title=title, unit="passes", units_per_second=1.0, file_format="png")
    (figure,) = figures
    (axes,), (legend,) = figure.axes, figure.legends
    for text in (axes._left_title, legend):
        extent = text.get_window_extent()
        assert figure.bbox.x0 <= extent.x0 < extent.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= extent.y0 < extent.y1 <= figure.bbox.y1
    drawn = {tuple(colour) for bars in axes.collections for colour in bars.get_facecolor()}
    assert drawn == {tuple(patch.get_facecolor()) for patch in legend.get_patches()}


def test_spans_are_kept_of_the_first_steps_alone() -> None:
    found = simulate(POLICIES[0], unit_model(POLICIES[0]), num_steps=NUM_TRACED_STEPS + 4)
    steps = {span.what.ticket.step for span in found.spans if isinstance(span.what, Collective)}
    assert steps == set(range(NUM_TRACED_STEPS))
