"""Market impact: the same simulated markets with and without an execution of a given size.

    python -m marsjax.experiments.market_impact --config=configs/market_impact.py
    python -m marsjax.experiments.market_impact --config=configs/market_impact.py:vwap,trajectories=32
    python -m marsjax.experiments.market_impact --config=configs/market_impact.py:after=5 --config.ratios=0.1,0.2,0.4

Half an hour of the noise agent makes `seeds` starting states. Each has `trajectories` futures without the execution,
and for every side and ratio as many with it, of the same random numbers; the target is the ratio times the mean volume
without it. Argument: the strategy first (twap, vwap, participation or immediate), then `trajectories`, `seeds`,
`minutes`, `after`, `seed`, `model`, `output`.
"""

from ml_collections import ConfigDict

from marsjax.experiments.config import parse_arg


def get_config(arg: str | None = None) -> ConfigDict:
    """The config of a study of market impact; see the top of the file for `arg`."""
    chosen = parse_arg(arg, ("twap", "vwap", "participation", "immediate"), trajectories=16, seeds=10, minutes=5,
                       after=0, seed=0, model="default", output="")
    config = ConfigDict()
    config.strategy = chosen.mode  # twap, vwap, participation or immediate
    config.sides = ("buy",)  # buy, sell or both
    config.ratios = (0.1, 0.3, 0.5)  # target over the mean volume without the execution
    config.targets = (0,)  # shares, multiples of 100, instead of the ratios; 0: as the ratios say
    config.seeds = chosen.seeds  # starting states
    config.trajectories = chosen.trajectories  # futures of each, for each side and ratio
    config.minutes = chosen.minutes  # of the execution, from the start of the futures on
    config.after_minutes = chosen.after  # that the futures go on after it, to see the impact decay
    config.seed = chosen.seed  # of the futures
    config.temperature = 1.0  # of the model's sampling
    config.output = chosen.output or f"runs/market_impact_{chosen.mode}"  # a new folder for the results
    config.overwrite = False  # whether an existing output folder is replaced
    config.picture = True  # volume.png, price.png, impact.png
    config.bootstrap = 1000  # resamplings of rollouts, for the intervals

    config.passive_seconds = 10  # twap: from a passive wake-up to the aggressive one
    config.idle_seconds = 5  # twap: from an aggressive wake-up to the next passive one
    config.max_passive_volume_ratio = 0.9  # twap: of the target, largest volume resting at the best price
    config.max_aggressive_volume_ratio = 1.0  # twap: of the target, largest aggressive order
    config.interval_seconds = 5  # vwap and participation: between two wake-ups
    config.participation_ratio = 0.25  # participation: shares for each that others trade
    config.price_change = 0  # beyond the best price, 1e-4 of the currency
    config.sweep = 5000  # immediate: the limit beyond the best price, 1e-4 of the currency

    config.model = chosen.model  # default, a folder, or owner/name on the hub
    config.revision = ""  # commit, branch or tag on the hub
    config.converters = ""  # folder of bin converters, if they are not beside the model
    config.dtype = "float32"  # of the model: float32 or bfloat16
    config.context = "auto"  # rolling (one layer), hop or recompute; auto: rolling for one layer, else hop
    config.hop = 448  # steps between two cuts of a context, in hop
    config.margin = 64  # tokens beyond one a step that fit between two cuts, in hop
    config.rows = 0  # trajectories decoded together, which fixes the bits; 0: 64 on a CPU, all of them elsewhere
    config.chunk_steps = 64  # decisions in one compiled call; no result depends on it
    config.slots = 0  # futures that run at a time; 0: 64 on a CPU, 2 x seeds x trajectories elsewhere

    config.tick = 100  # smallest price step, 1e-4 of the currency
    config.capacity = 256  # resting orders a side in the noise before the start
    config.rollout_capacity = 0  # the same in the futures; 0: those that rest at the start and 600 to 727 more
    config.trade_width = 32  # orders that one cancel of the noise agent may hit; futures list no transactions
    config.session = "continuous"  # the session: continuous
    config.start_time = "09:30:00"  # of the session and of the noise agent
    config.end_time = "16:00:00"  # of the session, included
    config.noise_minutes = 30  # of the noise agent before the start
    config.noise_seed = 0  # of the noise agent: start s is its trajectory s
    config.interval_s = 1.0  # mean time between two wake-ups of the noise agent
    config.init_price = 100_000  # around which the noise agent starts, 1e-4 of the currency
    return config
