"""Random policies in random worlds, and what happens in them."""

import random
from collections.abc import Iterator

from hypothesis import strategies as st

from fastgan.schedule import (
    Action,
    Agreed,
    Alternate,
    Balance,
    Joint,
    LazyPenalty,
    Plan,
    Policy,
    ScheduleState,
    Split,
    program,
)

penalties = st.lists(
    st.builds(
        LazyPenalty,
        st.sampled_from(["r1", "r2", "wgan_gp"]),
        st.floats(min_value=0.01, max_value=100),
        st.integers(1, 20),
    ),
    max_size=3,
    unique_by=lambda penalty: penalty.kind,
).map(tuple)
num_steps = st.integers(0, 20)
seeds = st.integers(0, 1 << 32)


@st.composite
def policies(draw: st.DrawFn, max_ranks: int = 64) -> Policy:
    """Any policy with any of its settings and modifiers."""
    kind = draw(st.sampled_from([Alternate, Joint, Balance, Split]))
    num_ranks = draw(st.integers(2 if kind is Split else 1, max_ranks))
    size = draw(st.integers(1, 8))
    settings = {"num_ranks": num_ranks, "penalties": draw(penalties)}
    num_units = num_ranks * draw(st.integers(1, 4))
    match draw(st.sampled_from(["whole", "equal", "measured", "given"])):
        case "whole":
            settings |= {"batch_images": num_units * size}
        case "equal":
            settings |= {"batch_images": num_units * size, "micro_batch_images": size}
        case "measured":
            num_units += draw(st.integers(0, num_ranks - 1))
            settings |= {"batch_images": num_units * size, "micro_batch_images": size, "shares": "measured"}
        case "given":
            shares = tuple(draw(st.lists(st.integers(1, 5), min_size=num_ranks, max_size=num_ranks)))
            if kind is Split:
                # A role's shares followed by those of the other role: both have the whole batch.
                settings |= {"num_ranks": 2 * num_ranks}
                own = {"batch_images": sum(shares) * size, "micro_batch_images": size, "shares": shares + shares[::-1]}
                return Split(**settings, **own, discriminator_ranks=num_ranks)
            settings |= {"batch_images": sum(shares) * size, "micro_batch_images": size, "shares": shares}
    return kind(**(settings | draw(_own_settings(kind, num_ranks))))


def _own_settings(kind: type[Policy], num_ranks: int) -> st.SearchStrategy[dict[str, object]]:
    images = st.sampled_from([0, 0, 1, 100, 1000])
    starts = st.one_of(
        images.map(lambda n: {"discriminator_start_images": n}), images.map(lambda n: {"generator_start_images": n})
    )
    updates = {"discriminator_updates": st.integers(1, 5), "generator_updates": st.integers(1, 3)}
    if kind is Split:
        timing = {"publish_every": st.integers(1, 4), "delay_steps": st.integers(0, 5)}
        timing["adversarial_start_images"] = images
        return st.fixed_dictionaries({"discriminator_ranks": st.integers(1, num_ranks - 1)} | updates | timing)
    if kind is Joint:
        return starts
    shared = {"share_fakes": st.booleans(), "adversarial_start_images": images}
    own = updates if kind is Alternate else {"max_updates": st.integers(2, 5), "patience": st.integers(1, 3)}
    return st.tuples(starts, st.fixed_dictionaries(shared | own)).map(lambda pair: pair[0] | pair[1])


def states(policy: Policy, steps: int, seed: int) -> Iterator[ScheduleState]:
    """The states before each of `steps` steps and after the last, with random numbers agreed on."""
    state = ScheduleState()
    yield state
    for step in range(steps):
        state = policy.advance(state, random_agreed(policy, seed + step))
        yield state


def random_agreed(policy: Policy, seed: int) -> Agreed:
    """What the ranks may have reduced in a step."""
    generator = random.Random(seed)
    return Agreed(
        sign_sum=generator.randint(-policy.batch_images, policy.batch_images),
        num_judged=policy.batch_images,
        rank_microseconds=tuple(generator.randint(0, 10**6) for _ in range(policy.num_ranks)),
    )


def last_state(policy: Policy, steps: int, seed: int) -> ScheduleState:
    """The state after `steps` steps."""
    return list(states(policy, steps, seed))[-1]


def plans_of_all_ranks(policy: Policy, state: ScheduleState) -> list[Plan]:
    """What each rank does in the step that follows `state`."""
    return [policy.plan(state, rank) for rank in range(policy.num_ranks)]


def programs(policy: Policy, steps: int, seed: int = 0) -> list[list[Action]]:
    """The actions of each rank in the first `steps` steps."""
    before = list(states(policy, steps, seed))[:steps]
    return [
        [action for state in before for action in program(policy.plan(state, rank))] for rank in range(policy.num_ranks)
    ]
