"""A simulation in Chrome's trace format, for chrome://tracing and Perfetto."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from fastgan.schedule import Compute, Span

# The two streams of a rank.
THREADS = {"computation": 0, "communication": 1}


def chrome_trace(spans: Sequence[Span], segments: Sequence[range]) -> bytes:
    """JSON: a process for the first rank of each segment, with a thread for each of its streams; microseconds."""
    return (json.dumps({"traceEvents": list(_events(spans, segments)), "displayTimeUnit": "ms"}) + "\n").encode()


def _events(spans: Sequence[Span], segments: Sequence[range]) -> Iterator[dict[str, Any]]:
    for segment in segments:
        name = f"ranks {segment.start} to {segment.stop - 1}" if len(segment) > 1 else f"rank {segment.start}"
        yield {"name": "process_name", "ph": "M", "pid": segment.start, "args": {"name": name}}
        for thread, number in THREADS.items():
            yield {"name": "thread_name", "ph": "M", "pid": segment.start, "tid": number, "args": {"name": thread}}
    for span in spans:
        yield {
            "name": span_name(span),
            "ph": "X",
            "pid": span.rank,
            "tid": THREADS["computation" if isinstance(span.what, Compute) else "communication"],
            "ts": span.begin * 1e6,
            "dur": (span.end - span.begin) * 1e6,
            "args": _arguments(span),
        }


def span_name(span: Span) -> str:
    """`learn discriminator`, `gradient generator`, `vote`."""
    if isinstance(span.what, Compute):
        return f"{span.what.kind} {' and '.join(update.network for update in span.what.updates)}"
    kind = span.what.kind
    return kind if kind == "vote" else f"{kind} {span.what.networks[0]}"


def _arguments(span: Span) -> dict[str, Any]:
    if isinstance(span.what, Compute):
        return {f"{u.network} {u.version}": f"reads version {u.reads} of the other network" for u in span.what.updates}
    return {"ticket": list(span.what.ticket), "ranks": [span.what.group.start, span.what.group.stop - 1]}
