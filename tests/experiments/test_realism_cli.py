"""Realism by numbers as its user meets it: tables that agree with the files read, events by hand, bad input.

All runs share one market and one tiny model of random weights.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
import pytest

from marsjax import bins, checkpoints, model
from marsjax.analysis import order_events, quantities, realism, realism_table
from marsjax.analysis.quantities import MINUTE_NS, OrderEvents
from marsjax.analysis.realism_table import Compared, Key
from marsjax.experiments import futures, launcher, realism_sources
from marsjax.experiments import realism as experiment
from marsjax.simulate import End
from marsjax.specs import SECOND_NS, ModelSpec
from marsjax.types import Kind
from tests.experiments.test_forecast_cli import write_day
from tests.helpers import fixture_folder

ROOT = Path(__file__).parents[2]
SMALL = ("--config.capacity=128", "--config.rollout_capacity=128", "--config.trade_width=16", "--config.chunk_steps=32",
         "--config.session=continuous", "--config.end_time=09:38:00", "--config.first_time=09:34:00",
         "--config.every_minutes=2", "--config.resamples=20", "--config.noise_minutes=1",
         "--config.seed=1")
DAYS = ("600000_20230711", "600001_20230711")
BEGIN = 9 * 3600 + 34 * 60


class Ran(NamedTuple):
    """What a run said, and what it compared."""

    code: int
    out: str
    err: str
    compared: list[Any]
    events: list[Any]


Run = Callable[..., Ran]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("model")
    spec = ModelSpec(width=8, heads=2, max_orders=32)
    converters = bins.read_folder(fixture_folder() / "converters")

    def save(source: str) -> Path:
        path = folder / str(abs(hash(source)))
        if not path.exists():
            checkpoints.save(path, spec, model.init(spec, jax.random.key(0)), converters, {"source": source})
        return path

    return save


@pytest.fixture
def run(tmp_path: Path, checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the experiment in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launcher, "set_up_compilation_cache", lambda: None)
    monkeypatch.setattr(launcher, "_set_up_logging", lambda verbose: None)
    compared, of_trace = realism_sources.compared, order_events.of_trace
    seen: dict[str, list[Any]] = {"compared": [], "events": []}

    def spy(into: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def spied(*given: Any) -> Any:
            seen[into].append(call(*given))
            return seen[into][-1]
        return spied

    monkeypatch.setattr(realism_sources, "compared", spy("compared", compared))
    monkeypatch.setattr(order_events, "of_trace", spy("events", of_trace))

    def call(*overrides: str, argument: str = "", source: str = f"trained on {', '.join(DAYS)}") -> Ran:
        whole = (f"{ROOT / 'configs' / 'realism.py'}:folder=.,trajectories=2,minutes=2,output=out,"
                 f"model={checkpoint(source)}{argument}")
        with pytest.raises(SystemExit) as left:
            launcher.run("realism", experiment.main, [f"--config={whole}", *SMALL, *overrides])
        said = capsys.readouterr()
        return Ran(int(left.value.code or 0), said.out, said.err, **seen)

    return call


@pytest.mark.slow
def test_the_days_of_the_checkpoint_are_compared_and_the_files_agree(
        run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    simulate, logs, done = futures.simulate, [], []

    def recorded(*given: Any, on_trace: futures.OnTrace) -> list[Any]:
        def record(*log: Any) -> None:
            logs.append(log)
            on_trace(*log)

        done.extend(simulate(*given, on_trace=record))
        return done

    monkeypatch.setattr(futures, "simulate", recorded)
    for name in (*DAYS, "600002_20230711"):
        write_day(tmp_path, name.split("_")[0])
    ran = run()
    assert ran.code == 0, ran.err
    assert sorted(path.name for path in Path("out").iterdir()) == ["metrics.json", "realism.csv", "realism.png"]
    table, told = pd.read_csv("out/realism.csv"), json.loads(Path("out/metrics.json").read_text())
    assert told["markets"] == list(DAYS) and told["starts"] == 2 and told["rollouts"]["trajectories"] == 8
    assert told["rollouts"]["lost"] == 0 and told["rollouts"]["cancels_not_listed"] == 0
    check_table(table)
    assert table.loc[table["minute"] == 0, ["floor", "earlier"]].notna().all(axis=None)

    # The history is that of the file: limit orders of 9:34 to 9:38, and cancels as old as the file has them.
    rows = pd.read_csv("600000_20230711_orders.csv")
    at = pd.to_timedelta(rows["MDTime"]).dt.total_seconds()
    compared = (at > BEGIN) & (at <= BEGIN + 240)
    first = table[(table["market"] == DAYS[0]) & (table["of"] == "order") & (table["minute"] == 0)]
    first = first.set_index("quantity")
    assert first.loc["order_volume", "history_values"] == (compared & (rows["OrderType"] == 2)).sum()
    assert first.loc["cancel_lifetime_s", "history_values"] == (compared & (rows["OrderType"] == 10)).sum()
    came = at[rows["OrderType"] == 2].groupby(rows["OrderNO"]).first()
    cancels = rows[compared & (rows["OrderType"] == 10)]
    aged = np.concatenate([one[Key("order", "cancel_lifetime_s", 0)] for one in ran.compared[0].history])
    np.testing.assert_allclose(aged, at[cancels.index] - cancels["OrderNO"].map(came), atol=1e-6)

    # What was simulated is what the rollouts counted, and the lifetime of every cancelled order is known.
    assert sum(len(one.time_ns) for one in ran.events) == told["rollouts"]["orders"]
    assert sum(int(one.traded.sum()) for one in ran.events) == told["rollouts"]["shares_traded"]
    taken = [one.volume[one.kind == Kind.CANCEL].sum() for one in ran.events]
    assert sum(taken) == told["rollouts"]["shares_cancelled"] > 0
    for one in ran.events:
        is_cancel = one.kind == Kind.CANCEL
        assert (one.lifetime_ns[is_cancel] >= 0).all() and (one.lifetime_ns[~is_cancel] == -1).all()
        fresh = np.flatnonzero(np.diff(one.time_ns) > 0)
        np.testing.assert_array_equal(one.mid_before[fresh + 1], one.mid_after[fresh])

    # The same rollouts again, but for one trajectory of the second start, which is lost.
    def again(*given: Any, on_trace: futures.OnTrace) -> list[Any]:
        del given
        for log in logs:
            on_trace(*log)
        ends = dataclasses.replace(done[1].simulation, end=np.array([End.TIME, End.NO_MID], np.int32))
        return [done[0], dataclasses.replace(done[1], simulation=ends), *done[2:]]

    monkeypatch.setattr(futures, "simulate", again)
    lost = run("--config.overwrite=true")
    assert lost.code == futures.NOT_WHOLE and "1 of 8 trajectories lost, not part of any number" in lost.err
    less = pd.read_csv("out/realism.csv")
    sizes = [frame.set_index(["market", "of", "quantity", "minute"])["simulated_values"] for frame in (table, less)]
    gone = ran.compared[0].simulated[1][1][Key("order", "spread", 0)]
    assert (sizes[0] - sizes[1])[DAYS[0], "order", "spread", 0] == len(gone) > 0
    assert (sizes[0] == sizes[1])[DAYS[1]].all()


def check_table(table: pd.DataFrame) -> None:
    """Laws of any table of two markets."""
    known = table.dropna(subset=["similarity"])
    assert known["similarity"].between(0, 1).all() and table["floor"].dropna().between(0, 1).all()
    assert (known["similarity_low"] <= known["similarity"]).all()
    assert (known["similarity"] <= known["similarity_high"]).all()
    keys = ["of", "quantity", "minute"]
    mean = table[table["market"] == "mean"].set_index(keys)
    for name in ("similarity", "ceiling", "floor", "wasserstein", "accuracy"):
        expected = table[table["market"] != "mean"].groupby(keys)[name].mean()
        np.testing.assert_allclose(mean[name], expected.reindex(mean.index))
    assert mean.loc[("minute", "return_1", 0), "paper_similarity"] == 0.956
    assert mean.loc[("order", "spread", 0)].isna()["paper_similarity"]
    assert {quantity for _, quantity, _ in mean.index} == ({*quantities.OF_STRETCHES, *quantities.OF_ORDERS}
                                                           - {"return_3", "return_4", "return_5"})


def events(seed: int, mids: float = 100.0) -> OrderEvents:
    """Twenty minutes of random orders from 9:30 on."""
    rng, n = np.random.default_rng(seed), 2000
    time_ns = 34_200 * SECOND_NS + np.sort(rng.integers(0, 20 * MINUTE_NS, n))
    mid = mids + np.cumsum(rng.normal(size=n + 1)) / 50
    kind = rng.integers(0, 3, n)
    return OrderEvents(
        time_ns=time_ns, kind=kind, price=mid[1:], volume=100 * rng.integers(1, 50, n),
        traded=100 * rng.integers(0, 2, n),
        mid_before=mid[:-1], mid_after=mid[1:], spread=rng.normal(size=n), ask_volume=rng.integers(1, 900, n),
        bid_volume=rng.integers(1, 900, n), lifetime_ns=np.where(kind == Kind.CANCEL, rng.integers(0, 10**12, n), -1))


def compare(history: OrderEvents, simulated: OrderEvents, noise: OrderEvents, lost: int = 0) -> pd.DataFrame:
    """Five starts of two minutes from 9:40 on, three trajectories each."""
    begins = [34_800 * SECOND_NS + 2 * minute * MINUTE_NS for minute in range(5)]
    before = {length: np.arange(34_200, 34_800 - 60 * length + 1, 60) * SECOND_NS for length in (1, 2)}
    fixed = realism_table.fix(history, before, 2)
    real = [quantities.of_stretch(history, t, 2) for t in begins]
    nothing = dict.fromkeys(quantities.OF_STRETCHES, np.nan)
    made = [[realism_table.values(simulated, t, 2)] * (3 - lost) for t in begins]
    foretold = [[quantities.of_stretch(simulated, t, 2)] * (3 - lost) + [nothing] * lost for t in begins]
    past, floor = ([realism_table.values(one, t, 2) for t in begins] for one in (history, noise))
    one = Compared("A", fixed, past, made, past, floor, past, real, foretold, 3)
    return realism_table.table([one, dataclasses.replace(one, market="B")], 2, 0, 50)


def test_history_is_its_own_equal_and_lost_trajectories_are_left_out() -> None:
    own = compare(events(0), events(0), events(1))
    check_table(own)
    own = own.dropna(subset=["similarity"])
    np.testing.assert_allclose(own["similarity"], 1)
    np.testing.assert_allclose(own["wasserstein"].dropna(), 0, atol=1e-9)
    np.testing.assert_allclose(own["accuracy"].dropna(), 1)
    some, none = compare(events(0), events(1), events(1), lost=1), compare(events(0), events(1), events(1), lost=3)
    whole = some[some["minute"] == 0]
    np.testing.assert_allclose(whole["similarity"], whole["floor"])  # the noise is that simulated, twice over
    np.testing.assert_allclose(whole["earlier"], 1)  # history itself
    pd.testing.assert_series_equal(some["accuracy"], compare(events(0), events(1), events(1))["accuracy"])
    assert none["similarity"].isna().all() and none["accuracy"].isna().all() and none["floor"].notna().all()


def test_returns_over_minutes_begin_on_each_whole_one() -> None:
    one, begin = events(2), 34_800 * SECOND_NS
    found = realism_table.values(one, begin, 5)
    mids = np.exp(np.cumsum([0, *found[Key("minute", "return_1", 0)]]))
    for length in (2, 5):
        np.testing.assert_allclose(found[Key("minute", f"return_{length}", 0)], np.log(mids[length:] / mids[:-length]))
    stretch = quantities.of_stretch(one, begin, 5)
    assert found[Key("minute", "return_5", 0)] == pytest.approx([stretch["return_5"]])
    np.testing.assert_array_equal(found[Key("minute", "buy_ratio", 0)][3:4], found[Key("minute", "buy_ratio", 4)])


def test_ceilings_by_weights_are_those_of_drawn_samples() -> None:
    rng = np.random.default_rng(0)
    history = realism.sample(list(rng.normal(size=(6, 1)) + rng.normal(size=(6, 15))))
    edges = realism.quantile_edges(rng.normal(size=500))
    slow = realism.ceiling(lambda a, b: realism.similarity(a, b, edges), history, (2, 40), 1, 400)
    np.testing.assert_allclose(realism.similarity_ceiling(history, edges, (2, 40), 2, 400)[0], slow[0], atol=0.02)
    slow = realism.ceiling(lambda a, b: realism.wasserstein(a, b, 2.0), history, (2, 40), 1, 400)
    np.testing.assert_allclose(realism.wasserstein_ceiling(history, 2.0, (2, 40), 2, 400)[0], slow[0], rtol=0.1)


@pytest.mark.parametrize(("argument", "override", "expected"), [
    ("", "--config.first_time=09:31:00", "expected 2 minutes of trading before it"),
    ("", "--config.first_time=08:00:00", "expected a time of continuous trading"),
    ("", "--config.every_minutes=3", "expected at least 2 starts whose minutes end by 09:38:00, got 1"),
    ("", "--config.last_time=09:34:59", "expected at least 2 starts whose minutes end by 09:38:00, got 1"),
    ("", "--config.every_minutes=0", "config.every_minutes: expected at least 1, got 0"),
    ("", "--config.noise_minutes=7", "config.noise_minutes: expected 2 minutes of trading after them, got 7"),
    ("", "--config.source=noise", "config.source: expected sse, got 'noise'"),
    ("", "--config.folder=none", "config.folder: no folder none"),
    ("", "--config.overwrite=false", "600001_20230711, which the checkpoint"),
    (",symbol=600009", "--config.overwrite=false", "symbol=600009"),
])
def test_bad_input_is_one_line_and_leaves_nothing(run: Run, tmp_path: Path, argument: str, override: str, expected: str
                                                  ) -> None:
    write_day(tmp_path)
    ran = run(override, argument=argument)
    assert ran.code == 1 and expected in ran.err and ran.err.count("\n") == 1, ran.err
    assert not Path("out").exists()


def test_a_checkpoint_that_names_no_days_needs_a_symbol(run: Run, tmp_path: Path) -> None:
    write_day(tmp_path)
    ran = run(source="random weights")
    assert ran.code == 1 and "names no days that it is trained on" in ran.err




def test_a_card_has_one_section_on_realism() -> None:
    card = "# A model\n\nWhat it is good for.\n"
    first, second = compare(events(0), events(1), events(1)), compare(events(0), events(0), events(1))
    written = experiment._with_section(card, first)
    assert written.startswith(card) and written.count("## Realism") == 1
    mean = second[(second["market"] == "mean") & (second["minute"] == 0) & (second["of"] == "order")]
    again = experiment._with_section(written, second)
    assert again == experiment._with_section(card, second) != written
    low, ceiling = mean.set_index("quantity").loc["spread", ["similarity_low", "ceiling"]]
    assert f"| orders | spread | 1.000 [{low:.3f}, 1.000] | {ceiling:.3f} | 1.000 | " in again
