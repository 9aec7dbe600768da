"""Which stylized facts rollouts show: a rule a fact, fixed beforehand, and an interval that says how sure it is.

A statistic is the mean over the symbols of one source of a combination of entries of the fact's table. From it is taken
what returns show that are Gaussian, independent and laid out in the same rollouts (means of simulations): pooled
correlations, kurtosis of overlapping returns and counts in unequal hours are not zero, or one, for those. The interval
is the rest -+ 1.96 standard errors: of a bootstrap whose blocks are rollouts, drawn anew within each symbol, or of the
spread over the symbols where there are enough of them, whichever is larger. Rollouts are taken to be independent of
each other: a move that many symbols share on one day is not in the interval.

A fact is PRESENT if the interval lies on the fact's side of zero and its middle is at least the margin, the smallest
effect that counts; ABSENT if the interval ends before the margin, so that a trace of it in ten thousand rollouts is no
fact; CANNOT_TELL otherwise, or with fewer than MIN_BLOCKS blocks. For fact 7, clock times with fewer returns
than that are left out: of n values none is over n ** 0.5 deviations, and two that are nearly equal make the scale
nearly zero; if they are most of the returns, there is no answer.
"""

import dataclasses
import enum
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from marsjax.analysis import stylized_facts
from marsjax.analysis.panel import Panel
from marsjax.analysis.stylized_facts import TABLES, group_sums
from marsjax.core import limits
from marsjax.core.errors import InputError

MIN_BLOCKS = 20
"""Blocks of a bootstrap, and symbols of a spread, below which no standard error is trusted."""
RESAMPLES = 200
_Z = 1.959964
# That any of fact 1's nine lags is outside: 5% for all of them together.
_Z_NINE = 2.773
_NULL_ROLLOUTS, _NULL_MOST, _NULL_LEAST = 40_000, 20, 4


class Conclusion(enum.StrEnum):
    """Whether rollouts show a fact."""

    PRESENT = "present"
    ABSENT = "absent"
    CANNOT_TELL = "cannot tell"


@dataclasses.dataclass(frozen=True)
class Rule:
    """How one fact is judged."""

    fact: int
    name: str
    table: str
    contrasts: tuple[Mapping[int, float], ...]
    """Weights of the table's keys, the statistic; where there are several, all must hold and the worst is shown."""
    margin: float
    """The smallest effect that counts, in units of the statistic; its sign is the fact's side of zero."""
    tests: str
    """In words."""
    in_paper: bool
    """Whether the paper finds it, in historical and in simulated data."""
    is_equivalence: bool = False
    """Present means: within -+ margin; absent: outside."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One fact in one source."""

    fact: int
    name: str
    source: str
    answer: Conclusion
    statistic: float
    """Mean over the symbols; NaN if there is none."""
    expected: float
    """The same for Gaussian i.i.d. returns in the same rollouts."""
    low: float
    """Of the interval of statistic - expected."""
    high: float
    margin: float
    symbols: int
    """With a defined statistic."""
    undefined: int
    """Symbols without one, left out of the mean."""
    blocks: int
    """Of the bootstrap: rollouts; for fact 5, runs of rollouts that share an hour."""
    tests: str
    in_paper: bool


def _mean(*keys: int) -> dict[int, float]:
    return {key: 1 / len(keys) for key in keys}


def _less(first: Mapping[int, float], second: Mapping[int, float]) -> dict[int, float]:
    return {**first, **{key: -weight for key, weight in second.items()}}


RULES = (
    Rule(1, "absence of autocorrelation", "cont1", tuple(_mean(lag) for lag in range(2, 11)), 0.1,
         "correlation of returns within -+ margin at every lag of 2 to 10 minutes", True, is_equivalence=True),
    Rule(2, "heavy tails", "cont2", (_mean(1),), 0.5, "excess kurtosis of 1-minute returns above 0", True),
    Rule(3, "gain/loss asymmetry", "cont3", (_mean(*range(1, 11)),), -0.2,
         "skewness of returns over 1 to 10 minutes below 0", False),
    Rule(4, "aggregational Gaussianity", "cont2", (_mean(1), _less(_mean(1), _mean(*range(11, 21)))), 0.5,
         "excess kurtosis of 1-minute returns above 0, and above that over 11 to 20 minutes", True),
    Rule(5, "intermittency", "cont5", ({0: 1.0},), 0.2,
         "Fano factor of extreme returns an hour above that of returns in random order", True),
    Rule(6, "volatility clustering", "cont6", (_mean(*range(1, 6)),), 0.03,
         "correlation of absolute returns above 0 over lags of 1 to 5 minutes", True),
    Rule(7, "conditional heavy tails", "cont7", (_mean(1),), 0.5,
         "excess kurtosis of 1-minute returns above 0, in units of the clock time's deviation", True),
    Rule(8, "slow decay of absolute returns' correlation", "cont6", (_mean(*range(11, 21)),), 0.03,
         "correlation of absolute returns above 0 over lags of 11 to 20 minutes", True),
    Rule(9, "leverage effect", "cont9", (_mean(*range(1, 11)),), -0.03,
         "correlation of return and later absolute return below 0 over lags of 1 to 10 minutes", False),
    Rule(10, "volume/volatility correlation", "cont10", (_mean(*range(1, 11)),), 0.03,
         "correlation of volume and later absolute return above 0 over lags of 1 to 10 minutes", True),
    Rule(11, "asymmetry in time scales", "cont11",
         (_less(_mean(*range(1, 11)), _mean(*range(-10, 0))),), -0.03,
         "coarse volatility foretells later fine volatility better than the other way round, 1 to 10 minutes", True),
)
"""`in_paper`: arXiv 2409.07486 finds 9 of the 11, and finds 3 and 9 in neither source."""


def judge(panel: Panel, seed: int = 0, resamples: int = RESAMPLES) -> list[Verdict]:
    """Verdicts of all rules on every source of a panel, by source, then fact.

    Args:
      panel: at least one rollout.
      seed: of the bootstrap and of the Gaussian returns; the same seed gives the same verdicts.
      resamples: of the bootstrap.

    Raises InputError for a panel without rollouts, fewer than 2 or more than limits.RESAMPLES resamples, and a seed
    below 0.
    """
    if not len(panel.source) or resamples < 2:
        raise InputError(f"judge: expected rollouts and at least 2 resamples, got {len(panel.source)} and {resamples}")
    limits.check_whole("judge: resamples", resamples, 2, limits.RESAMPLES)
    limits.check_whole("judge: seed", seed, 0, limits.SEED)
    return [verdict for i, source in enumerate(np.unique(panel.source))
            for verdict in _judge_source(panel.of(str(source)), np.random.default_rng([seed, i]), resamples)]


def table_lines(verdicts: Sequence[Verdict]) -> list[str]:
    """The verdicts as a Markdown table: a row a fact, a column a source, and what the paper finds."""
    sources = sorted({verdict.source for verdict in verdicts})
    cells = {(verdict.fact, verdict.source): verdict for verdict in verdicts}
    lines = ["| fact | " + " | ".join(sources) + " | paper |", "|---" * (len(sources) + 2) + "|"]
    for rule in RULES:
        found = [cells[rule.fact, source] for source in sources]
        shown = [*map(_cell, found), Conclusion.PRESENT if rule.in_paper else Conclusion.ABSENT]
        lines.append(f"| {rule.fact} {rule.name} | " + " | ".join(shown) + " |")
    return lines


def counts(verdicts: Sequence[Verdict]) -> dict[str, dict[str, int]]:
    """Source -> answer -> facts."""
    return {source: {answer.value: sum(x.answer == answer for x in verdicts if x.source == source)
                     for answer in Conclusion} for source in sorted({x.source for x in verdicts})}


def _cell(verdict: Verdict) -> str:
    if not verdict.symbols:
        return verdict.answer
    rest = verdict.statistic - verdict.expected
    return f"{verdict.answer} {rest:+.3f} [{verdict.low:+.3f}, {verdict.high:+.3f}]"


@dataclasses.dataclass(frozen=True)
class _Blocks:
    """Sums of one table's entries: what the bootstrap weighs."""

    sums: np.ndarray
    """float64 [K, U, P] over U blocks."""
    group: np.ndarray
    """int64 [U], group (symbol) of each block, rising."""


def _judge_source(panel: Panel, rng: np.random.Generator, resamples: int) -> Iterator[Verdict]:
    blocks = {rule.fact: _blocks(panel, rule) for rule in RULES}
    draws = int(np.clip(_NULL_ROLLOUTS // len(panel.source), _NULL_LEAST, _NULL_MOST))
    null_panels = (gaussian(panel, rng) for _ in range(draws))
    nulls = [{rule.fact: _symbols(rule, _blocks(null, rule)) for rule in RULES} for null in null_panels]
    for rule in RULES:
        values, null = _symbols(rule, blocks[rule.fact]), np.stack([one[rule.fact] for one in nulls])
        variance, count = _bootstrap(rule, blocks[rule.fact], rng, resamples)
        usable = np.isfinite(values).all(axis=0) & ((count > 1) | (len(count) >= MIN_BLOCKS))
        yield _verdict(rule, str(panel.source[0]), values[:, usable], null[:, :, usable], variance[:, usable],
                       int(count[usable].sum()), int((~usable).sum()))


def _verdict(rule: Rule, source: str, values: np.ndarray, null: np.ndarray, variance: np.ndarray, blocks: int,
             undefined: int) -> Verdict:
    """From statistics [C, S] of C contrasts and S symbols, null [D, C, S], and the bootstrap's variance [C, S]."""
    symbols, nan = values.shape[1], float("nan")
    known = {"fact": rule.fact, "name": rule.name, "source": source, "margin": rule.margin, "symbols": symbols,
            "undefined": undefined, "blocks": blocks, "tests": rule.tests, "in_paper": rule.in_paper}
    if not symbols:
        return Verdict(answer=Conclusion.CANNOT_TELL, statistic=nan, expected=nan, low=nan, high=nan, **known)
    statistic, by_draw = values.mean(axis=1), np.nanmean(null, axis=2)
    expected = by_draw.mean(axis=0)
    error = variance.sum(axis=1) / symbols**2
    if symbols >= MIN_BLOCKS:
        error = np.maximum(error, values.var(axis=1, ddof=1) / symbols)
    error = error * (1 + 1 / len(by_draw))
    rest, half = statistic - expected, _Z * np.sqrt(error)
    answer = _answer(rule, rest, half) if blocks >= MIN_BLOCKS else Conclusion.CANNOT_TELL
    reach = np.abs(rest) + half if rule.is_equivalence else half - rest * np.sign(rule.margin)
    worst = int(np.argmax(reach))
    return Verdict(answer=answer, statistic=float(statistic[worst]), expected=float(expected[worst]),
                   low=float((rest - half)[worst]), high=float((rest + half)[worst]), **known)


def _answer(rule: Rule, rest: np.ndarray, half: np.ndarray) -> Conclusion:
    """From the middles and half widths of the intervals of all contrasts, [C] each."""
    if rule.is_equivalence:
        if (np.abs(rest) + half < rule.margin).all():
            return Conclusion.PRESENT
        return Conclusion.ABSENT if (np.abs(rest) - half * _Z_NINE / _Z > rule.margin).any() else Conclusion.CANNOT_TELL
    effect, margin = rest * np.sign(rule.margin), abs(rule.margin)
    if ((effect - half > 0) & (effect >= margin)).all():
        return Conclusion.PRESENT
    return Conclusion.ABSENT if (effect + half < margin).any() else Conclusion.CANNOT_TELL


def gaussian(panel: Panel, rng: np.random.Generator) -> Panel:
    """The same rollouts with Gaussian i.i.d. 1-minute returns, of each symbol's own deviation; volumes as they were."""
    r = stylized_facts.returns(panel, 1)
    mean_square = group_sums((r * r).sum(axis=1), panel) / (group_sums(np.ones(len(r)), panel) * r.shape[1])
    drawn = rng.standard_normal(r.shape) * np.sqrt(mean_square)[panel.group][:, None]
    path = np.concatenate([np.zeros((len(r), 1)), np.cumsum(drawn, axis=1)], axis=1)
    return dataclasses.replace(panel, price=panel.price[:, :1] * np.exp(path))


def _symbols(rule: Rule, blocks: _Blocks) -> np.ndarray:
    """The statistic of each contrast and symbol, [C, S]."""
    added = np.add.reduceat(blocks.sums, _first(blocks), axis=1)
    return np.tensordot(_weights(rule), _statistic(rule, added), 1)


def _bootstrap(rule: Rule, blocks: _Blocks, rng: np.random.Generator, resamples: int
               ) -> tuple[np.ndarray, np.ndarray]:
    """Variance [C, S] of the statistic of each symbol over resampled blocks, and the number of blocks [S].

    Of n blocks n - 1 are drawn, each counting n / (n - 1) times: so the variance of a mean comes out right (Rao & Wu
    1988), where drawing n would make that of a few blocks too small.
    """
    weights, first = _weights(rule), _first(blocks)
    count = np.diff(np.append(first, len(blocks.group)))
    variance = np.zeros((len(weights), len(first)))
    for symbol, (start, size) in enumerate(zip(first, count, strict=True)):
        if size > 1:
            drawn = rng.multinomial(size - 1, np.full(size, 1 / size), resamples) * (size / (size - 1))
            each = np.tensordot(weights, _statistic(rule, drawn @ blocks.sums[:, start : start + size]), 1)
            defined = each[:, np.isfinite(each).all(axis=0)]
            variance[:, symbol] = defined.var(axis=1, ddof=1) if defined.shape[1] > 1 else 0.0
    return variance, count


def _first(blocks: _Blocks) -> np.ndarray:
    """First block of each symbol."""
    return np.flatnonzero(np.diff(blocks.group, prepend=-1))


def _weights(rule: Rule) -> np.ndarray:
    """Of the contrasts over the keys that they name, [C, K]."""
    keys = sorted({key for contrast in rule.contrasts for key in contrast})
    return np.array([[contrast.get(key, 0.0) for key in keys] for contrast in rule.contrasts])


def _statistic(rule: Rule, added: np.ndarray) -> np.ndarray:
    """Added sums [K, ..., P] -> [K, ...]."""
    if rule.table == "cont5":
        return _fano(added)
    return next(table for table in TABLES if table.name == rule.table).statistic(added)


def _blocks(panel: Panel, rule: Rule) -> _Blocks:
    keys = sorted({key for contrast in rule.contrasts for key in contrast})
    if rule.table == "cont5":
        return _hour_blocks(panel)
    if rule.table == "cont7":
        sums = stylized_facts.normalized_powers(panel, keys, MIN_BLOCKS)
        returns = panel.price[:, stylized_facts.FIRST + 1 :].size
        return _Blocks(sums if sums[0, :, 0].sum() >= returns / 2 else np.zeros_like(sums), panel.group)
    table = next(table for table in TABLES if table.name == rule.table)
    return _Blocks(table.sums(panel, keys), panel.group)


def _fano(sums: np.ndarray) -> np.ndarray:
    """Variance over mean (ddof 1) from sums of 1, count, count squared [..., 3]."""
    hours, count, square = np.moveaxis(sums, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (square - count**2 / hours) / (hours - 1) / (count / hours)
        return np.where((hours > 1) & (count > 0), found, np.nan)


def _hour_blocks(panel: Panel) -> _Blocks:
    """Hours of one symbol in blocks of complete rollouts: two hours are in one block if some rollout runs over both."""
    group, count, hour = stylized_facts.extremes_by_hour(panel)
    ends = [(panel.start + minute).astype("datetime64[h]").astype(np.int64)
            for minute in (stylized_facts.FIRST, panel.price.shape[1] - 2)]
    # Codes of (symbol, hour); between hours of two symbols there is a gap.
    low, span = int(ends[0].min()), int(ends[1].max() - ends[0].min()) + 2
    joined = [(panel.group * span + ends[0] - low + step)[ends[0] + step < ends[1]]
              for step in range(int((ends[1] - ends[0]).max()))]
    code = group * span + hour - low
    is_new = ~np.isin(code - 1, np.concatenate([np.zeros(0, np.int64), *joined]))
    first = np.flatnonzero(is_new)
    sums = np.add.reduceat(np.stack([np.ones(len(count)), count, count**2], axis=1), first, axis=0)
    return _Blocks(sums[None], group[first])
