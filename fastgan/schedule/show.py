"""A schedule as a text table: who does what, on how many images, with which versions and collectives."""

from collections.abc import Iterator, Sequence
from itertools import islice

from fastgan.schedule.plan import Step, Update
from fastgan.schedule.policy import Policy
from fastgan.schedule.state import ScheduleState

HEADER = ("step", "clock", "ranks", "makes", "reads", "images per rank", "collectives", "notes")


def schedule_table(policy: Policy, *, num_steps: int) -> list[str]:
    """A line for each vote, publication and update in the first `num_steps` steps, in the order of a rank's actions."""
    rows = [HEADER]
    state = ScheduleState()
    for _ in range(num_steps):
        step = policy.step(state)
        lines = [*_votes(step), *_publications(step), *_updates(policy, step)]
        for place, line in enumerate(lines):
            rows.append((str(step.state.step), f"{state.images_seen:,}", *line) if place == 0 else ("", "", *line))
        state = policy.advance(state)
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


Line = tuple[str, str, str, str, str, str]


def _votes(step: Step) -> Iterator[Line]:
    if step.vote is not None:
        when = f"acted on in step {step.state.step + step.vote_lag}"
        yield _ranks(step.vote.group), "vote", "", "", f"vote {step.vote.ticket.place}", when


def _publications(step: Step) -> Iterator[Line]:
    for exchange in step.exchanges:
        what = f"{exchange.network} {exchange.version} published"
        yield _ranks(exchange.group), what, "", "", f"publish {exchange.ticket.place}", f"from rank {exchange.source}"
    for exchange in step.arrivals:
        what = f"{exchange.network} {exchange.version} arrives"
        yield _ranks(exchange.targets), what, "", "", "", f"published in step {exchange.ticket.step}"


def _updates(policy: Policy, step: Step) -> Iterator[Line]:
    gradients = (collective for collective in step.collectives if collective.kind == "gradient")
    for update in step.updates:
        own = islice(gradients, 1 if len(update.group) > 1 else 0)
        sizes = sorted(set(policy.images_of_ranks(step.state, update.group)))
        images = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        names = ", ".join(f"{c.kind} {c.ticket.place}" for c in own)
        other = "generator" if update.network == "discriminator" else "discriminator"
        makes, reads = f"{update.network} {update.version}", f"{other} {update.reads}"
        yield _ranks(update.group), makes, reads, images, names, ", ".join(_notes(update, is_joint=step.is_joint))


def _notes(update: Update, *, is_joint: bool) -> Iterator[str]:
    yield from (f"{penalty.kind} x {penalty.weight:g}" for penalty in update.penalties)
    if is_joint:
        yield "jointly"
    elif update.shared_fakes:
        yield "makes the fakes of both" if update.network == "discriminator" else "same fakes"
    if not update.adversarial:
        yield "without the discriminator"


def _ranks(group: Sequence[int]) -> str:
    return str(group[0]) if len(group) == 1 else f"{group[0]}-{group[-1]}"
