"""The schedule state in a checkpoint: plain integers in, the same integers out, anything else refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgan.errors import CheckpointError
from fastgan.schedule import ScheduleState

counts = st.integers(0, 1 << 60)
decisions = st.lists(counts, max_size=9).map(tuple)
states = st.builds(
    ScheduleState,
    step=counts,
    images_seen=counts,
    discriminator_updates=counts,
    generator_updates=counts,
    next_latent=counts,
    balance=st.one_of(st.just(()), st.tuples(counts, counts, counts, counts)),
    shares=decisions,
    later_shares=decisions,
)


@given(states)
def test_json_round_trip(state: ScheduleState) -> None:
    assert ScheduleState.from_json(json.loads(json.dumps(state.to_json()))) == state


def test_a_missing_key_is_refused() -> None:
    values = ScheduleState().to_json()
    del values["step"]
    with pytest.raises(CheckpointError, match="lacks step; its keys are"):
        ScheduleState.from_json(values)


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(CheckpointError, match="has the unknown speed; its keys are"):
        ScheduleState.from_json({**ScheduleState().to_json(), "speed": 1})


@pytest.mark.parametrize("value", [-1, 1.0, "1", True, None])
def test_a_value_that_is_no_count_is_refused(value: object) -> None:
    with pytest.raises(CheckpointError, match=r"step=.* must be an integer of at least 0"):
        ScheduleState.from_json({**ScheduleState().to_json(), "step": value})


def test_a_state_from_before_there_were_decisions_is_read() -> None:
    old = {"step": 3, "images_seen": 96, "discriminator_updates": 3, "generator_updates": 3, "next_latent": 96}
    assert ScheduleState.from_json(old) == ScheduleState(**old)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shares": 4}, "shares=4 must be a list"),
        ({"shares": [4, -1]}, "shares=-1 must be an integer of at least 0"),
        ({"balance": [1, 1]}, r"balance=\[1, 1\] must have 4 numbers or none"),
    ],
)
def test_decisions_that_are_no_lists_of_counts_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(CheckpointError, match=f"schedule state: {message}"):
        ScheduleState.from_json({**ScheduleState().to_json(), **values})
