"""A plan as the actions of one rank in order: what it computes, and when it starts and awaits collectives.

    judge_real   the discriminator sees the first micro-batch of real images
    generate     the generator makes the first micro-batch of fakes
    learn        all that is left of an update's passes, up to the rank's own gradient
    apply        the optimizer step, and for a generator its average

Every action names what it reads and writes, so that `overlap` can see which of them may change places.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from fastgan.schedule.plan import Collective, Exchange, Plan, Update

ComputeKind = Literal["judge_real", "generate", "learn", "apply"]


@dataclass(frozen=True)
class Compute:
    """Work on the rank's own device for `updates`: one, or two that are made jointly."""

    kind: ComputeKind
    updates: tuple[Update, ...]
    reads: frozenset[str]
    writes: frozenset[str]


@dataclass(frozen=True)
class Start:
    """The rank joins the collective and goes on."""

    collective: Collective
    reads: frozenset[str]
    writes: frozenset[str]


@dataclass(frozen=True)
class Wait:
    """The rank goes on when the collective has ended."""

    collective: Collective
    reads: frozenset[str]
    writes: frozenset[str]


Action = Compute | Start | Wait


def program(plan: Plan) -> tuple[Action, ...]:
    """The rank's actions in the plain order, in which gradients are awaited where they are started."""
    whole = plan.whole
    actions: list[Action] = []
    if whole.vote is not None:
        actions.append(Start(whole.vote, frozenset(), frozenset({_label(whole.vote)})))
    if whole.vote_due is not None:
        actions.append(Wait(whole.vote_due, frozenset({_label(whole.vote_due)}), frozenset()))
    actions += [_send(exchange, plan.rank) for exchange in whole.exchanges if plan.rank in exchange.group]
    actions += [_receive(exchange, plan.rank) for exchange in whole.arrivals if plan.rank in exchange.group]
    collectives = (collective for collective in plan.collectives if collective.kind == "gradient")
    for together in [plan.updates] if whole.is_joint else [(update,) for update in plan.updates]:
        actions += _passes(together)
        shared = list(islice(collectives, len(together) if len(together[0].group) > 1 else 0))
        actions += [Start(collective, _gradients(collective), frozenset()) for collective in shared]
        actions += [Wait(collective, _gradients(collective), _gradients(collective)) for collective in shared]
        actions += [_apply(update) for update in together]
    return tuple(actions)


def overlap(actions: Iterable[Action]) -> tuple[Action, ...]:
    """The same actions with what can wait put off until something needs it.

    Put off are waits and optimizer steps, in their order. Another action takes place as soon as those have that
    it depends on, so it finds the very values of the plain order; and no collective overtakes another. Over the actions
    of many steps this hides the discriminator's reduction behind the generator's pass on new latents, and the
    generator's behind the discriminator's next pass on real images.
    """
    done: list[Action] = []
    put_off: list[Action] = []
    for action in actions:
        if _can_wait(action):
            put_off.append(action)
            continue
        needed = max((place + 1 for place, other in enumerate(put_off) if _must_follow(action, other)), default=0)
        done += [*put_off[:needed], action]
        del put_off[:needed]
    return (*done, *put_off)


def _can_wait(action: Action) -> bool:
    match action:
        case Compute(kind=kind):
            return kind == "apply"
        case Start():
            return False
    return True


def _must_follow(action: Action, other: Action) -> bool:
    """Whether `action` finds or leaves something else when it overtakes `other`."""
    return bool(action.writes & (other.reads | other.writes) or action.reads & other.writes)


def _passes(together: tuple[Update, ...]) -> Iterator[Action]:
    networks = [update.network for update in together]
    if "discriminator" in networks:
        yield Compute("judge_real", together, frozenset({"discriminator"}), frozenset({"real logits"}))
    # The generator takes over the fakes of the discriminator's update; of several micro-batches none is kept.
    first = together[0]
    if first.network == "discriminator" or not first.shared_fakes or len(first.micro_batches) > 1:
        yield Compute("generate", together, frozenset({"generator"}), frozenset({"fakes"}))
    reads = {"fakes", "generator"}
    if "discriminator" in networks:
        reads |= {"real logits", "discriminator"}
    elif first.adversarial:
        reads |= {"discriminator"}
    yield Compute("learn", together, frozenset(reads), frozenset(f"gradient {name}" for name in networks))


def _gradients(collective: Collective) -> frozenset[str]:
    return frozenset(f"gradient {name}" for name in collective.networks)


def _apply(update: Update) -> Action:
    gradient = f"gradient {update.network}"
    return Compute("apply", (update,), frozenset({update.network, gradient}), frozenset({update.network}))


def _send(exchange: Exchange, rank: int) -> Action:
    """The source's weights go into a buffer first, so that it may change them at once."""
    reads = frozenset({exchange.network}) if rank == exchange.source else frozenset()
    return Start(exchange.collective, reads, frozenset({_buffer(exchange)}))


def _receive(exchange: Exchange, rank: int) -> Action:
    writes = frozenset({exchange.network}) if rank in exchange.targets else frozenset()
    return Wait(exchange.collective, frozenset({_buffer(exchange)}), writes)


def _label(vote: Collective) -> str:
    return f"vote {vote.ticket.step}"


def _buffer(exchange: Exchange) -> str:
    return f"published {exchange.network} {exchange.version}"
