"""The table of LOB-Bench: real and generated orders of one market, statistic by statistic.

A row is one figure of one statistic with its interval, and beside it what the same figure is between history and itself
(`ceiling`: two samples of real stretches of those hours, as many as are compared), between history and the same day
before the first start (`earlier`), another day of the same symbol (`other_day`), and the noise agent (`floor`). Low is
good: 0 for the distances, .5 for the discriminator. A figure that a sample cannot give has none, and says why.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd

from marsjax.analysis.lob_bench import discriminator, distances, response, statistics
from marsjax.analysis.lob_bench.discriminator import DiscriminatorSpec
from marsjax.analysis.lob_bench.distances import Binning, Distances, Values
from marsjax.analysis.lob_bench.messages import OrderMessages
from marsjax.analysis.quantities import MINUTE_NS
from marsjax.core.errors import InputError

MEAN = "mean"
"""Stands for the market in rows of all."""
ALL_MINUTES = 0
UNCONDITIONAL, CONDITIONAL, SUMMARY = "unconditional", "conditional", "summary"
RESPONSE, DISCRIMINATOR = "response", "discriminator"
L1, WASSERSTEIN, DEVIATION, AUC = "l1", "wasserstein", "deviation", "auc"
OTHERS = ("earlier", "other_day", "floor")
"""Columns of what history is compared with beside the generated orders and itself."""
_FIGURES = ("value", "low", "high", "ceiling", *OTHERS)
_TWINS = 40
"""Pairs of samples of which a ceiling is the mean."""

Parts = Sequence[Sequence[OrderMessages]]
"""The sequences of each stretch."""


@dataclasses.dataclass(frozen=True, eq=False)
class Sources:
    """What is compared of one market; stretches are of `minutes`."""

    market: str
    real: Parts
    """What really followed each start, one sequence a stretch."""
    generated: Parts
    """What was generated from each start, a sequence a trajectory."""
    begins_ns: Sequence[int]
    """Of the starts, nanoseconds since midnight."""
    minutes: int
    nearby: Parts
    """Real stretches of the same hours, for the ceiling; they may overlap."""
    nearby_begins_ns: Sequence[int]
    others: Mapping[str, Parts]
    """By name in OTHERS; what is not there has no figure."""


@dataclasses.dataclass(frozen=True)
class TableSpec:
    """What is computed."""

    seed: int = 0
    resamples: int = 200
    """Of each interval."""
    by_minute: bool = True
    """Whether L1 is given for each minute after the start too (the paper's divergence)."""
    discriminators: Mapping[str, DiscriminatorSpec] = dataclasses.field(default_factory=lambda: {
        "changes": DiscriminatorSpec(), "orders_and_books": DiscriminatorSpec(discriminator.FEATURES)})
    """By name in the table."""

    def __post_init__(self) -> None:
        if self.resamples < 2:
            raise InputError(f"TableSpec.resamples: expected 2 at least, got {self.resamples}")


class BenchRow(NamedTuple):
    """One figure."""

    market: str
    section: str
    statistic: str
    measure: str
    minute: int
    """After the start, from 1; ALL_MINUTES for all."""
    value: float
    low: float
    high: float
    ceiling: float
    earlier: float
    other_day: float
    floor: float
    real_values: int
    generated_values: int
    note: str
    """Why there is no value, or in rows of all markets, which have none."""


def table(sources: Sequence[Sources], spec: TableSpec) -> pd.DataFrame:
    """Rows of every market and below them the means over the markets that have a value; columns as of `BenchRow`.

    InputError without markets.
    """
    if not sources:
        raise InputError("lob_bench: expected at least one market, got none")
    frame = pd.DataFrame([row for one in sources for row in rows(one, spec)], columns=BenchRow._fields)
    keys = ["section", "statistic", "measure", "minute"]
    means = [_mean(some) for _, some in frame.groupby(keys, sort=False)]
    return pd.concat([frame, pd.DataFrame(means, columns=BenchRow._fields)], ignore_index=True)


def rows(one: Sources, spec: TableSpec) -> list[BenchRow]:
    """All rows of one market."""
    found: list[BenchRow] = []
    drawn: dict[str, list[np.ndarray]] = {L1: [], WASSERSTEIN: []}
    for name, statistic in statistics.UNCONDITIONAL.items():
        values = _Gathered.of(one, statistic.values)
        key = _empty(one.market, UNCONDITIONAL, name)
        both, apart = _two_rows(one, key, values, Binning(statistic.is_discrete), spec)
        found += both
        if not both[0].note:
            drawn[L1].append(apart.l1_drawn)
            drawn[WASSERSTEIN].append(apart.wasserstein_drawn)
        if spec.by_minute:
            found += [_of_minute(one, both[0], values, minute) for minute in range(1, one.minutes + 1)]
    for name, conditional in statistics.CONDITIONAL.items():
        binning = Binning(conditional.is_discrete, True, conditional.is_given_discrete)
        values = _Gathered.of(one, conditional.values, conditional.given)
        found += _two_rows(one, _empty(one.market, CONDITIONAL, name), values, binning, spec)[0]
    return (_summaries(one.market, found, drawn) + found + _responses(one, spec)
            + [_discriminated(one, name, how, spec) for name, how in spec.discriminators.items()])


def _empty(market: str, section: str, statistic: str, measure: str = "") -> BenchRow:
    figures: dict[str, Any] = dict.fromkeys(_FIGURES, np.nan)
    return BenchRow(market, section, statistic, measure, ALL_MINUTES, **figures, real_values=0, generated_values=0,
                    note="")


_Values = Callable[[OrderMessages], np.ndarray]


class _Gathered(NamedTuple):
    """The values of one statistic."""

    collect: Callable[[Parts], Values]
    real: Values
    generated: Values
    nearby: Values
    why: str
    """Why there is nothing to be said."""

    @classmethod
    def of(cls, one: Sources, values: _Values, given: _Values | None = None) -> "_Gathered":
        def collect(parts: Parts) -> Values:
            of = [[values(messages) for messages in sequences if len(messages)] for sequences in parts]
            if given is None:
                return distances.gathered(of)
            return distances.gathered(of, [[given(each) for each in sequences if len(each)] for sequences in parts])

        real, generated = collect(one.real), collect(one.generated)
        return cls(collect, real, generated, collect(one.nearby), _refusal(real, generated))


def _refusal(real: Values, generated: Values) -> str:
    return distances.refusal("real", real) or distances.refusal("generated", generated)


def _two_rows(one: Sources, key: BenchRow, values: _Gathered, binning: Binning, spec: TableSpec
              ) -> tuple[list[BenchRow], Distances]:
    """The rows of L1 and Wasserstein-1 of one statistic."""
    key = key._replace(real_values=len(values.real.values), generated_values=len(values.generated.values))
    apart, why = distances.NOTHING, values.why
    if not why:
        apart = distances.distances(values.real, values.generated, binning, spec.seed, spec.resamples)
        why = "nothing in common: no group has both real and generated values" if np.isnan(apart.l1.value) else ""
    if why:
        return [key._replace(measure=measure, note=why) for measure in (L1, WASSERSTEIN)], distances.NOTHING
    columns: dict[str, tuple[float, float]] = {}
    if len(values.nearby.values):
        columns["ceiling"] = distances.twin(values.nearby, values[1:3], binning, spec.seed, _TWINS)
    for name, parts in one.others.items():
        other = values.collect(parts)
        if not distances.refusal(name, other):
            against = distances.distances(values.real, other, binning)
            columns[name] = against.l1.value, against.wasserstein.value
    found = []
    for place, (measure, interval) in enumerate(((L1, apart.l1), (WASSERSTEIN, apart.wasserstein))):
        beside: dict[str, Any] = {name: pair[place] for name, pair in columns.items()}
        found.append(key._replace(measure=measure, **interval._asdict(), **beside))
    return found, apart


def _of_minute(one: Sources, whole: BenchRow, values: _Gathered, minute: int) -> BenchRow:
    """L1 between all that really followed and what was generated in one minute; `others` are those of all minutes."""
    def within(parts: Parts, begins: Sequence[int]) -> Values:
        return values.collect([[messages.between(begin + (minute - 1) * MINUTE_NS, begin + minute * MINUTE_NS)
                                for messages in sequences] for sequences, begin in zip(parts, begins, strict=True)])

    generated = within(one.generated, one.begins_ns)
    row = whole._replace(minute=minute, generated_values=len(generated.values), low=np.nan, high=np.nan)
    if why := values.why or _refusal(values.real, generated):
        return _empty(row.market, row.section, row.statistic, row.measure)._replace(
            minute=minute, real_values=row.real_values, generated_values=row.generated_values, note=why)
    binning = Binning(statistics.UNCONDITIONAL[whole.statistic].is_discrete, with_wasserstein=False)
    later, ceiling = within(one.nearby, one.nearby_begins_ns), np.nan
    if len(later.values):
        ceiling, _ = distances.twin(values.nearby, (values.real, generated), binning, 0, _TWINS, later)
    return row._replace(value=distances.distances(values.real, generated, binning).l1.value, ceiling=ceiling)


_SUMMARIES: dict[str, Callable[[np.ndarray], Any]] = {
    "interquartile mean": distances.interquartile_mean, "mean": functools.partial(np.mean, axis=-1),
    "median": functools.partial(np.median, axis=-1)}


def _summaries(market: str, found: Sequence[BenchRow], drawn: dict[str, list[np.ndarray]]) -> list[BenchRow]:
    """Over the unconditional statistics that have a value: interquartile mean (the paper's summary), mean, median."""
    made = []
    for measure in (L1, WASSERSTEIN):
        kept = [row for row in found if row.section == UNCONDITIONAL and row.measure == measure
                and row.minute == ALL_MINUTES and not row.note]
        for name, summary in _SUMMARIES.items():
            row = _empty(market, SUMMARY, name, measure)
            if not kept:
                made.append(row._replace(note="too few: no statistic has a value"))
                continue
            columns: dict[str, Any] = {}
            for column in ("value", "ceiling", *OTHERS):
                some = np.array([getattr(each, column) for each in kept])
                columns[column] = float(summary(some[np.isfinite(some)])) if np.isfinite(some).any() else np.nan
            of_draws = summary(np.stack(drawn[measure], axis=-1))
            _, low, high = distances.around(columns["value"], of_draws, 1.0 if measure == L1 else np.inf)
            note = "" if len(kept) == len(statistics.UNCONDITIONAL) else f"of {len(kept)} statistics"
            made.append(row._replace(**columns, low=low, high=high, note=note))
    return made


def _responses(one: Sources, spec: TableSpec) -> list[BenchRow]:
    """How far the price responses are apart, in mean real spreads."""
    real, generated, nearby = (response.of_parts(parts) for parts in (one.real, one.generated, one.nearby))
    spreads = distances.gathered([[statistics.spread(each) for each in sequences] for sequences in one.real]).values
    unit = float(spreads.mean()) if len(spreads) else np.nan
    value = response.deviations(real, generated, unit, spec.seed, spec.resamples)
    others = {name: response.of_parts(parts) for name, parts in one.others.items()}
    apart = {name: response.deviations(real, other, unit) for name, other in others.items()}
    ceiling = (response.twin(nearby, (len(one.real), len(one.generated)), unit, spec.seed, _TWINS)
               if len(one.nearby) else np.full(len(response.EVENTS), np.nan))
    found = []
    for number, event in enumerate(response.EVENTS):
        counts = [int(each.counts[:, number, 0].sum()) for each in (real, generated)]
        row = _empty(one.market, RESPONSE, event, DEVIATION)._replace(real_values=counts[0], generated_values=counts[1])
        why = response.refusal("real", real, number) or response.refusal("generated", generated, number)
        if why:
            found.append(row._replace(note=why))
            continue
        columns: dict[str, Any] = {name: apart[name][number].value for name, other in others.items()
                                   if not response.refusal(name, other, number)}
        found.append(row._replace(**value[number]._asdict(), ceiling=float(ceiling[number]), **columns))
    return found


def _discriminated(one: Sources, name: str, how: DiscriminatorSpec, spec: TableSpec) -> BenchRow:
    """The area under the ROC curve of one network; the ceiling is that of every other real stretch and the rest."""
    key = jax.random.key(spec.seed)
    real, generated = discriminator.windows(one.real, how), discriminator.windows(one.generated, how)
    row = _empty(one.market, DISCRIMINATOR, name, AUC)._replace(
        real_values=len(real.block), generated_values=len(generated.block))
    found, why = discriminator.score(real, generated, how, key, spec.resamples)
    if why:
        return row._replace(note=why)
    first, second = (discriminator.windows(one.real[begin::2], how) for begin in (0, 1))
    columns: dict[str, Any] = {"ceiling": discriminator.score(first, second, how, key, 2)[0].value}
    for column, parts in one.others.items():
        columns[column] = discriminator.score(real, discriminator.windows(parts, how), how, key, 2)[0].value
    return row._replace(**found._asdict(), **columns)


def _mean(some: pd.DataFrame) -> BenchRow:
    """The mean over the markets that have a value; their intervals are taken to be independent."""
    first, known = some.iloc[0], some[some["value"].notna()]
    row = _empty(MEAN, first["section"], first["statistic"], first["measure"])._replace(
        minute=int(first["minute"]), real_values=int(some["real_values"].sum()),
        generated_values=int(some["generated_values"].sum()))
    if known.empty:
        return row._replace(note=first["note"])
    columns: dict[str, Any] = {name: float(known[name].mean()) for name in ("value", "ceiling", *OTHERS)}
    for end, sign in (("low", -1), ("high", 1)):
        away = float(np.sqrt(((known[end] - known["value"]) ** 2).sum(skipna=False))) / len(known)
        columns[end] = columns["value"] + sign * away
    left = some[some["value"].isna()]
    notes = [note for note in dict.fromkeys(known["note"]) if note]
    if not left.empty:
        notes.append(f"without {', '.join(left['market'])} ({left.iloc[0]['note']})")
    return row._replace(**columns, note="; ".join(notes))
