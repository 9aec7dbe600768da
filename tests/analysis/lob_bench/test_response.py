"""Price responses against a plain loop over events."""

import math

import numpy as np

from marsjax.analysis.lob_bench import response
from marsjax.analysis.lob_bench.messages import OrderMessages
from marsjax.core.records import Kind, Side
from tests.analysis.lob_bench.made_up import made, parts


def slow(messages: OrderMessages) -> dict[tuple[str, int], list[float]]:
    mids = [(a + b) / 2 if a and b else math.nan
            for a, b in zip(messages.ask.tolist(), messages.bid.tolist(), strict=True)]
    found: dict[tuple[str, int], list[float]] = {(event, lag): [] for event in response.EVENTS for lag in response.LAGS}
    for t in range(1, len(mids)):
        if math.isnan(mids[t]) or math.isnan(mids[t - 1]):
            continue
        is_bid = messages.side[t] == Side.BID
        if messages.kind[t] == Kind.CANCEL:
            name, sign = "CA", -1 if is_bid else 1
        else:
            name, sign = "MO" if messages.traded[t] else "LO", 1 if is_bid else -1
        for lag in response.LAGS:
            if t - 1 + lag < len(mids) and not math.isnan(mids[t - 1 + lag]):
                found[f"{name}_{int(mids[t] != mids[t - 1])}", lag].append(sign * (mids[t - 1 + lag] - mids[t - 1]))
    return found


def test_responses_are_those_of_a_loop() -> None:
    messages = made(1, 400)
    got, expected = response.of_parts([[messages]]), slow(messages)
    curves = response.curves(got)[0]
    for e, event in enumerate(response.EVENTS):
        for k, lag in enumerate(response.LAGS):
            values = expected[event, lag]
            assert got.counts[0, e, k] == len(values) > 5
            np.testing.assert_allclose(curves[e, k], np.mean(values), atol=1e-9)


def test_deviations_are_0_for_equal_sources_and_have_intervals_else() -> None:
    real, other = response.of_parts(parts(1)), response.of_parts(parts(2))
    assert [one.value for one in response.deviations(real, real, 50.0)] == [0] * 6
    found = response.deviations(real, other, 50.0, 1, 50)
    half = response.deviations(real, other, 100.0)
    for one, less in zip(found, half, strict=True):
        assert one.low < one.value < one.high and less.value == one.value / 2 and np.isnan(less.low)
    assert (response.twin(real, (6, 6), 50.0) > 0).all()


def test_too_few_events_are_refused_and_short_sequences_have_none() -> None:
    short = response.of_parts([[made(3, 5)], [made(4, 0)]])
    assert short.counts[:, :, -1].sum() == 0 and np.isnan(response.curves(short)[0, :, -1]).all()
    assert response.refusal("real", short, 0) == ("too few: real has MO_0 with 100 messages after it in 0 stretches, "
                                                  "expected 2 at least")
    few = response.of_parts(parts(5, blocks=2, count=110))
    assert response.refusal("real", few, 1).startswith("too few: real has ")
    assert not response.refusal("real", response.of_parts(parts(1)), 0)
