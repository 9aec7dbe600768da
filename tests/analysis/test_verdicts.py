"""The rules are judged on returns whose facts are known before they judge anything else."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import pytest

from marsjax.analysis import verdicts
from marsjax.analysis.panel import Panel
from marsjax.analysis.verdicts import Conclusion, Verdict

SYMBOLS, ROLLOUTS, MINUTES = 40, 12, 26
Returns = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]


def independent(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian returns [size, 25] and volumes [size, 26]."""
    return rng.standard_normal((size, MINUTES - 1)), rng.lognormal(8, 1, (size, MINUTES))


def garch(rng: np.random.Generator, size: int, alpha: float = 0.1, beta: float = 0.88
          ) -> tuple[np.ndarray, np.ndarray]:
    """GARCH(1, 1) of unit variance, after 200 minutes: excess kurtosis 3.06, correlations of squares fall by 2%."""
    variance, x, kept = np.ones(size), np.zeros(size), []
    for _ in range(200 + MINUTES - 1):
        variance = 1 - alpha - beta + alpha * x * x + beta * variance
        x = np.sqrt(variance) * rng.standard_normal(size)
        kept.append(x)
    return np.stack(kept[200:], axis=1), independent(rng, size)[1]


def volume_driven(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Volume is the exponential of an AR(1), and the deviation of a return goes with its root."""
    level, kept = rng.standard_normal(size), []
    for _ in range(MINUTES):
        level = 0.9 * level + np.sqrt(1 - 0.81) * rng.standard_normal(size)
        kept.append(level)
    volume = np.exp(np.stack(kept, axis=1))
    return np.sqrt(volume[:, 1:]) * rng.standard_normal((size, MINUTES - 1)), volume * 1e4


def leveraged(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A fall makes the next minutes livelier, and falls are longer than rises."""
    shock = 1 - rng.exponential(1, (size, MINUTES + 10))
    before = [shock[:, t - 10 : t].sum(axis=1) for t in range(10, MINUTES + 9)]
    return shock[:, 10:-1] * np.exp(-0.15 * np.stack(before, axis=1)), independent(rng, size)[1]


def returning(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Half of a return is taken back two minutes later."""
    shock = rng.standard_normal((size, MINUTES + 1))
    return shock[:, 2:] - 0.5 * shock[:, :-2], independent(rng, size)[1]


def panel(returns: Returns, seed: int = 0, symbols: int = SYMBOLS, rollouts: int = ROLLOUTS, source: str = "Control"
          ) -> Panel:
    rng, size = np.random.default_rng(seed), symbols * rollouts
    x, volume = returns(rng, size)
    start = np.datetime64("2024-03-04T09:40", "m") + 1440 * rng.integers(0, 60, size) + rng.integers(0, 60, size)
    price = 1e5 * np.exp(1e-3 * np.concatenate([np.zeros((size, 1)), np.cumsum(x, axis=1)], axis=1))
    return Panel(np.full(size, source), np.repeat([f"{k:03d}" for k in range(symbols)], rollouts),
                 np.tile(np.arange(rollouts), symbols), start, price, volume)


@functools.cache
def judged(returns: Returns, seed: int = 0) -> dict[int, Verdict]:
    return {x.fact: x for x in verdicts.judge(panel(returns, seed), resamples=100)}


def test_independent_gaussian_returns_show_nothing_but_the_absence_of_correlation() -> None:
    answers = {fact: x.answer for fact, x in judged(independent).items()}
    assert answers[1] == Conclusion.PRESENT
    assert {answers[fact] for fact in (2, 4, 6, 7, 8, 9, 10)} == {Conclusion.ABSENT}
    assert Conclusion.PRESENT not in {answers[fact] for fact in (3, 5, 11)}


@pytest.mark.parametrize("seed", [1, 2])
def test_garch_shows_heavy_tails_and_volatility_that_clusters_and_lasts(seed: int) -> None:
    got = judged(garch, seed)
    assert {got[fact].answer for fact in (2, 5, 6, 8)} == {Conclusion.PRESENT}
    assert {got[fact].answer for fact in (9, 10)} == {Conclusion.ABSENT} and got[3].answer != Conclusion.PRESENT
    assert 1.0 < got[2].statistic < 4.0


def test_volume_that_drives_volatility_is_seen() -> None:
    got = judged(volume_driven)
    assert {got[fact].answer for fact in (2, 4, 6, 10)} == {Conclusion.PRESENT}
    assert got[9].answer == Conclusion.ABSENT


def test_longer_falls_that_raise_volatility_are_seen() -> None:
    got = judged(leveraged)
    assert {got[fact].answer for fact in (3, 9)} == {Conclusion.PRESENT}
    assert got[3].statistic < 0 and got[9].statistic < 0


def test_returns_that_are_taken_back_have_a_correlation() -> None:
    got = judged(returning)[1]
    assert got.answer == Conclusion.ABSENT
    # The worst lag is 2, and the correlation -0.5 / 1.25.
    assert got.statistic == pytest.approx(-0.4, abs=0.03) and got.low < got.statistic < got.high < -0.1


def test_coarse_volatility_that_leads_is_seen() -> None:
    """Fine volatility follows what the coarse one was minutes ago."""
    def cascade(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
        x = rng.standard_normal((size, MINUTES + 20))
        for t in range(5, x.shape[1]):
            x[:, t] *= 0.3 + 0.45 * np.abs(x[:, t - 5 : t].sum(axis=1))
        return x[:, -MINUTES + 1 :], independent(rng, size)[1]

    got = judged(cascade)[11]
    assert got.answer == Conclusion.PRESENT and got.high < 0


def test_few_rollouts_tell_nothing() -> None:
    few = verdicts.judge(panel(garch, symbols=2, rollouts=5), resamples=20)
    assert {x.answer for x in few} == {Conclusion.CANNOT_TELL} and {x.blocks for x in few if x.fact != 5} == {0, 10}
    one_each = {x.fact: x for x in verdicts.judge(panel(garch, symbols=15, rollouts=1), resamples=20)}
    assert {x.answer for x in one_each.values()} == {Conclusion.CANNOT_TELL}
    assert one_each[2].symbols == 0 and one_each[2].undefined == 15 and np.isnan(one_each[2].low)


def test_symbols_with_one_rollout_each_are_told_by_their_spread() -> None:
    got = {x.fact: x for x in verdicts.judge(panel(garch, symbols=300, rollouts=1), resamples=20)}
    assert got[10].symbols == 300 and got[10].answer == Conclusion.ABSENT and got[10].low < 0 < got[10].high


def test_the_same_seed_gives_the_same_verdicts_and_sources_are_judged_apart() -> None:
    one, other = panel(garch, symbols=6), panel(independent, symbols=6, source="Other")
    both = Panel(*(np.concatenate([getattr(part, field.name) for part in (one, other)])
                   for field in dataclasses.fields(Panel)))
    got = verdicts.judge(both, seed=3, resamples=20)
    assert [str(x) for x in got] == [str(x) for x in verdicts.judge(both, seed=3, resamples=20)]
    assert [str(x) for x in got[:11]] == [str(x) for x in verdicts.judge(one, seed=3, resamples=20)]
    assert [(x.source, x.fact) for x in got] == [(s, f) for s in ("Control", "Other") for f in range(1, 12)]
    lines = verdicts.table_lines(got)
    assert lines[0] == "| fact | Control | Other | paper |" and len(lines) == 13
    assert [line.split(" | ")[-1].strip(" |") for line in lines[2:]].count("absent") == 2


def test_the_error_of_a_mean_is_that_of_the_rollouts() -> None:
    """Fact 10 over many independent panels: the intervals are as wide as the statistics are apart."""
    small = [verdicts.judge(panel(independent, seed, symbols=4, rollouts=10), resamples=60)[9] for seed in range(30)]
    apart = np.std([x.statistic for x in small])
    told = np.mean([(x.high - x.low) / 2 / 1.96 for x in small])
    assert 0.75 < told / apart < 1.4


def test_the_bootstrap_of_few_rollouts_is_as_wide_as_symbols_are_apart() -> None:
    """Of three blocks, where drawing three would give two thirds of the variance."""
    rule = next(rule for rule in verdicts.RULES if rule.fact == 10)
    blocks = verdicts._blocks(panel(independent, symbols=500, rollouts=3), rule)
    variance, count = verdicts._bootstrap(rule, blocks, np.random.default_rng(0), 100)
    apart = verdicts._symbols(rule, blocks).var()
    assert set(count) == {3} and 0.85 < variance.mean() / apart < 1.15


def test_hours_of_one_rollout_stay_together() -> None:
    """Rollouts over 9:59 to 10:01 join the hours 9 and 10; a rollout from 11:05 is a block of its own."""
    start = np.array(["2024-03-04T09:50", "2024-03-04T09:10", "2024-03-04T11:05", "2024-03-05T09:40"], "datetime64[m]")
    rows = dataclasses.replace(panel(independent, symbols=2, rollouts=4), start=np.tile(start, 2))
    got = {x.fact: x for x in verdicts.judge(rows, resamples=10)}
    assert got[5].blocks == 2 * 3


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="expected rollouts and at least 2 resamples, got 0 and 100"):
        verdicts.judge(panel(independent).of("none"), resamples=100)
    with pytest.raises(ValueError, match="at least 2 resamples, got 480 and 1"):
        verdicts.judge(panel(independent), resamples=1)
