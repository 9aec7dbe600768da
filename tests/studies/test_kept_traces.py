"""Kept traces of some futures are the tables of a whole rollout; places in made days; what a stopped forecast has."""

import functools

import jax
import numpy as np
import pandas as pd
import pytest

from marsjax import testing
from marsjax.core.errors import InputError
from marsjax.core.times import SECOND_NS
from marsjax.observers.trace import TraceObserver
from marsjax.sim import rollout
from marsjax.sim.result import Rollout, SoFar
from marsjax.sim.rollout import Hooks
from marsjax.sim.simulator import Simulator
from marsjax.sim.specs import RolloutSpec
from marsjax.sim.state import End
from marsjax.studies import forecasts, order_model, places
from marsjax.studies.kept_traces import KeptTraces

MARKET = testing.tiny_market(2)
START_NS = 36_000 * SECOND_NS


@functools.cache
def traced() -> tuple[Rollout, KeptTraces, tuple[SoFar, ...]]:
    """Five futures of two minutes, two of which are kept, after others that were begun in a book too small."""
    model = testing.tiny_model()
    simulator = Simulator.of(model, MARKET, observers=[TraceObserver(MARKET, 64)])
    kept, seen = KeptTraces(MARKET, [3, 1]), []
    start = testing.random_start(MARKET, model, START_NS)

    def run(seed: int) -> Rollout:
        kept.begin(0, 1)
        return rollout.rollout(simulator, start, RolloutSpec(5, 2, seed, chunk_steps=64, slots=3), hooks=Hooks(
            lambda progress: seen.append(progress.so_far()), kept))

    run(1)
    seen.clear()
    return run(0), kept, tuple(seen)


def test_tables_of_kept_futures_are_rows_of_those_of_the_rollout() -> None:
    run, kept, _ = traced()
    assert kept.trajectories() == [1, 3] and kept.dropped == 0
    for own, whole in ((kept.orders(), run.orders()), (kept.trades(), run.trades())):
        expected = whole[whole["trajectory"].isin([1, 3])].reset_index(drop=True)
        assert len(own) > 20
        pd.testing.assert_frame_equal(own, expected)
    depth = run.depth("integer")
    pd.testing.assert_frame_equal(kept.depth(3, "integer"), depth[depth["trajectory"] == 3].reset_index(drop=True))


def test_tables_of_a_stopped_forecast_are_rows_of_those_of_the_whole_one() -> None:
    """Labels of those alone that had ended; minutes of those that run as far as they had passed."""
    run, _, seen = traced()
    whole = forecasts.minute_table(run, MARKET, START_NS)
    labels = forecasts.labels_so_far(run.so_far())
    assert np.isfinite(labels).all()
    counts = []
    for found in seen:
        is_over = found.end != End.RUNNING
        np.testing.assert_array_equal(forecasts.labels_so_far(found), np.where(is_over, labels, np.nan))
        table = forecasts.minute_table(found, MARKET, START_NS)
        assert (table["minute"] * 60 * SECOND_NS <= found.passed_ns[table["trajectory"]]).all()
        pd.testing.assert_frame_equal(
            table.drop(columns="status"), table[["trajectory", "minute"]].merge(whole).drop(columns="status")[
                table.drop(columns="status").columns], check_dtype=False)
        assert (table["status"] == np.where(is_over[table["trajectory"]], "TIME", "RUNNING")).all()
        counts.append(len(table))
    assert counts[0] < counts[-1] == len(whole) == 10
    assert forecasts.label_table(seen[0], forecasts.labels_so_far(seen[0]), MARKET, START_NS)["end"].isin(
        ["RUNNING", "TIME"]).all()


def test_places_in_a_made_day() -> None:
    """At its own start nothing is known of what came; earlier, the day itself tells."""
    prepared = order_model.loaded("default", jax.devices()[0])
    day = places.made_day("default", "quiet")
    most = places.warm_up_of(day)
    own, early = (places.in_made_day(prepared, day, minutes, 3) for minutes in (most, most - 6))
    assert own.time_ns == day.start_ns and own.known_minutes(1) == 0 and own.market.accounts == 3
    begin_ns = day.feed.venue.session.periods[0].start_ns
    assert early.time_ns == begin_ns + (most - 6) * 60 * SECOND_NS
    assert early.known_minutes(6) == 6 and early.known_minutes(7 + (day.start_ns % (60 * SECOND_NS) > 0)) == 0
    assert own.market.kernels == prepared.cache.kernels
    for minutes in (0, most + 1):
        with pytest.raises(InputError, match="warm-up minutes of the day quiet: expected at"):
            places.in_made_day(prepared, day, minutes, 3)
    with pytest.raises(InputError, match=r"quiet: start at 13:2.* after 5 minutes from 13:20:00"):
        places.in_real_day(prepared, day.feed, 48_000 * SECOND_NS, 5, 30, 3)
