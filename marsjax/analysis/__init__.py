"""From what a market did to tables, scores, verdicts and figures; nothing here runs a market.

The public names are modules, each imported when it is first used: pandas, scipy and matplotlib are not before.
Days and markets:
  `day`, `plots`: a replayed day by the minute, and its picture.
  `figure_style`: what figures have in common.
  `depth_plots`: a heat map of the shares at each price over time.
  `fills`: whether the fills of a replay are those that the exchange published.
  `market_summary`: orders, rejections, volume and conservation from the counters of the exchange.
  `bars`, `rollout_info`: minute bars of many rollouts, and the published archive of such bars.
Forecasts:
  `forecast`, `forecast_report`: labels, their distribution and classes; a forecast as record and text.
  `forecast_baselines`: forecasts that need no order model.
  `forecast_scores`, `evaluation_table`: scores with standard errors; the table of an evaluation.
  `forecast_plots`, `label_plots`: their figures.
Control:
  `control_fit`, `control_plots`: how well futures fit a curve; controlled ones beside uncontrolled ones, a figure.
  `control_realism`: what control costs in realism.
Market impact:
  `impact`, `impact_report`, `impact_plots`: costs and impact of executions; a study in groups; its figures.
  `impact_so_far`: a study that still runs, cut to what its rollouts have simulated.
  `intervals`: numbers with intervals by the bootstrap.
Agents that learn:
  `agent_scores`, `agent_plots`: what executions cost, with intervals over seeds and starts; figures of it.
Realism (paper, Table 7):
  `quantities`, `order_events`: what orders look like, and the orders that this is taken of.
  `realism`, `realism_table`, `realism_report`, `realism_plots`: similarity of two sources; its table, text and figure.
  `lob_bench`: the statistics of LOB-Bench, its discriminator among them, in modules of its own.
Detection:
  `interval_features`: numbers of an interval of a market.
  `detection`: how far an interval lies from others, as p-values; `roc`: how well scores tell two kinds apart.
  `detection_report`, `detection_plots`: a watched day as record and text, and its figure.
Order models by their size:
  `scaling_law`, `scaling_plots`: a law of losses by size and orders, with its intervals; its figure.
Stylized facts:
  `panel`: bars as dense rollouts of one length.
  `stylized_facts`, `verdicts`, `fact_plots`: tables of the eleven facts, which of them hold, and their figures.
"""

import importlib
from types import ModuleType

__all__ = ["agent_plots", "agent_scores", "bars", "control_fit", "control_plots", "control_realism", "day",
           "depth_plots", "detection", "detection_plots", "detection_report", "evaluation_table", "fact_plots",
           "figure_style", "fills", "forecast", "forecast_baselines", "forecast_plots", "forecast_report",
           "forecast_scores", "impact", "impact_plots", "impact_report", "impact_so_far", "interval_features",
           "intervals", "label_plots", "lob_bench", "market_summary", "order_events", "panel", "plots", "quantities",
           "realism", "realism_plots", "realism_report", "realism_table", "roc", "rollout_info", "scaling_law",
           "scaling_plots", "stylized_facts", "verdicts"]


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
