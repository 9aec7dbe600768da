"""Tables of the stylized facts -> a figure a fact, or one of all: means over symbols, 95% intervals, by source."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from marsjax.analysis import stylized_facts
from marsjax.analysis.figure_style import ASK, BID, CAME, MIDDLE, PATH, plain
from marsjax.analysis.verdicts import RULES, Conclusion, Rule, Verdict

FACTS = tuple(rule.fact for rule in RULES)
_LABELS = {"lag": "lag, minutes", "delta_t": "period, minutes"}
_LOG_TICKS = (1, 2, 5, 10, 20)
_LEAST_SHOWN = 1e-3
"""Correlation below which a logarithmic axis shows nothing."""
_INTERMITTENCY = 5
_COLORS = (MIDDLE, CAME, BID, PATH)
_ANSWERS = {Conclusion.PRESENT: BID, Conclusion.ABSENT: ASK, Conclusion.CANNOT_TELL: PATH}
_REACH = 6.0
"""Of the axis of `effects`, in margins; what is beyond ends in an arrow at its edge."""


def figure(fact: int, tables: Mapping[str, pd.DataFrame]) -> Figure:
    """The picture of one fact, 1 to 11, from the tables of `stylized_facts.tables`.

    Facts 2 and 4 share a table, and 6 and 8: 4 has its periods on a logarithmic axis, 8 both axes.
    """
    drawn = Figure(figsize=(5, 3.4), layout="constrained")
    axes = drawn.subplots()
    _draw(axes, fact, tables)
    axes.set_title(f"{fact}. {_rule(fact).name}", fontsize="medium")
    if fact != _INTERMITTENCY:
        axes.legend(fontsize="small")
    return drawn


def all_facts(tables: Mapping[str, pd.DataFrame], verdicts: Sequence[Verdict] = ()) -> Figure:
    """All eleven facts in one picture, each with its verdict for each source where there are any."""
    drawn = Figure(figsize=(13, 9), layout="constrained")
    places = drawn.subplots(3, 4).ravel()
    sources = sorted({str(source) for source in tables[_rule(1).table]["source"]})
    colors = dict(zip(sources, np.resize(_COLORS, len(sources)), strict=True))
    for fact, axes in zip(FACTS, places, strict=False):
        _draw(axes, fact, tables)
        axes.set_title(f"{fact}. {_rule(fact).name}", fontsize="small", weight="bold", loc="left",
                       pad=16)
        found = {verdict.source: str(verdict.answer) for verdict in verdicts if verdict.fact == fact}
        for i, source in enumerate(name for name in sources if name in found):
            axes.annotate(found[source], (0, 1), xytext=(95 * i, 5), xycoords="axes fraction", fontsize="small",
                          textcoords="offset points", color=str(colors[source]))
    last = places[len(FACTS)]
    last.axis("off")
    for i, source in enumerate(sources):
        last.text(0.05, 0.85 - 0.13 * i, source, color=str(colors[source]), fontsize="large", weight="bold")
    told = ["Means over the symbols, with intervals of", "95%. Under each name: whether the fact",
            "is present, by source. 11, dashed: what", "lag tau has more than -tau."]
    last.text(0.05, 0.8 - 0.13 * len(sources), "\n".join(told), va="top", fontsize="medium", color="0.35")
    return drawn


def _rule(fact: int) -> Rule:
    return next(rule for rule in RULES if rule.fact == fact)


def _draw(axes: Axes, fact: int, tables: Mapping[str, pd.DataFrame]) -> None:
    """What `figure` shows of a fact, without title and legend."""
    rule = _rule(fact)
    table = tables[rule.table]
    if fact == _INTERMITTENCY:
        _boxes(axes, table)
        return
    entry = next(entry for entry in stylized_facts.TABLES if entry.name == rule.table)
    draw = _points if fact == 8 else _means
    draw(axes, table, entry.key)
    if fact == 11:
        _means(axes, tables["cont11_difference"], entry.key, "--", " (tau less -tau)")
        axes.axvline(0, color="gray", linestyle=":", linewidth=0.8)
    axes.set_xlabel(_LABELS[entry.key])
    axes.set_ylabel(entry.title.lower(), fontsize="small")
    if fact in (4, 8):
        axes.set_xscale("log")
        axes.set_xticks(_LOG_TICKS, [str(tick) for tick in _LOG_TICKS])
        axes.minorticks_off()
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if fact == 8:
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.8 * _LEAST_SHOWN)
    else:
        axes.axhline(0, color="gray", linewidth=0.8)
    plain(axes)


def effects(verdicts: Sequence[Verdict]) -> Figure:
    """The effect of each fact over its margin, the smallest that counts, with intervals and answers; by source.

    Right of 1 a fact is there; fact 1, that something is absent, is there inside of -1 to 1.
    """
    sources = sorted({verdict.source for verdict in verdicts})
    figure = Figure(figsize=(4.2 + 4.2 * len(sources), 5.2), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(sources), sharey=True))
    for axes, source in zip(panels, sources, strict=True):
        for verdict in (each for each in verdicts if each.source == source):
            _effect(axes, verdict)
        for x, style in ((0.0, "-"), (1.0, ":")):
            axes.axvline(x, color="0.4", linewidth=0.9, linestyle=style)
        axes.set(xlim=(-_REACH, _REACH * 1.7), xlabel="effect over the smallest that counts (dotted)",
                 ylim=(max(FACTS) + 0.6, min(FACTS) - 0.6))
        axes.set_xticks(np.arange(-_REACH, _REACH + 1, 2))
        axes.set_title(source, fontsize="medium", loc="left")
        plain(axes)
    panels[0].set_yticks(FACTS, [f"{rule.fact}  {rule.name}" for rule in RULES])
    return figure


def _effect(axes: Axes, verdict: Verdict) -> None:
    """One fact: a dot, its interval, and the answer in words at the right."""
    color, y = _ANSWERS[verdict.answer], verdict.fact
    axes.text(_REACH * 1.08, y, verdict.answer.value, color=color, va="center", fontsize="small", fontweight="bold")
    if not verdict.symbols:
        return
    ends = sorted(x / verdict.margin for x in (verdict.low, verdict.high))
    middle = (verdict.statistic - verdict.expected) / verdict.margin
    axes.plot(np.clip(ends, -_REACH, _REACH), [y, y], color=color, linewidth=2.2, alpha=0.6, solid_capstyle="butt")
    inside = float(np.clip(middle, -_REACH, _REACH))
    marker = "o" if inside == middle else (">" if middle > 0 else "<")
    axes.plot(inside, y, marker, color=color, markersize=6)


def _means(axes: Axes, table: pd.DataFrame, key: str, style: str = "-", label: str = "") -> None:
    for color, (source, rows) in zip(_cycle(table), stylized_facts.summary(table).groupby("source"), strict=False):
        axes.plot(rows[key], rows["mean"], style, marker="o", markersize=3, color=color, label=f"{source}{label}")
        axes.fill_between(rows[key], rows["low"], rows["high"], color=color, alpha=0.2, linewidth=0)


def _points(axes: Axes, table: pd.DataFrame, key: str) -> None:
    """Means with their intervals on a logarithmic axis; a triangle at its foot where a mean is not above it."""
    for place, (color, (source, rows)) in enumerate(zip(_cycle(table), stylized_facts.summary(table).groupby("source"),
                                                        strict=False)):
        x = rows[key].to_numpy() * (1 + 0.03 * place)  # beside one another
        mean, low, high = (np.maximum(rows[name].to_numpy(), _LEAST_SHOWN) for name in ("mean", "low", "high"))
        is_above = rows["mean"].to_numpy() > _LEAST_SHOWN
        axes.errorbar(x[is_above], mean[is_above], [(mean - np.minimum(low, mean))[is_above],
                                                    (np.maximum(high, mean) - mean)[is_above]],
                      fmt="o", markersize=4, color=color, elinewidth=0.8, capsize=2, label=str(source))
        is_below = rows["mean"].to_numpy() <= _LEAST_SHOWN
        axes.plot(x[is_below], mean[is_below], "v", markersize=5, color=color)


def _boxes(axes: Axes, table: pd.DataFrame) -> None:
    groups = {str(source): rows["fano_factor"].dropna().to_numpy() for source, rows in table.groupby("source")}
    axes.boxplot(list(groups.values()), orientation="horizontal", tick_labels=list(groups), showmeans=True, widths=0.6)
    axes.axvline(1, color="gray", linestyle="--", linewidth=0.8)
    axes.set_xlabel("Fano factor of extreme returns")
    plain(axes)


def _cycle(table: pd.DataFrame) -> list[str]:
    count = table["source"].nunique()
    return list(np.resize(_COLORS, count))
