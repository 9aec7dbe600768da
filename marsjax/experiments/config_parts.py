"""Keys that several configs share, with their comments, which `:help` prints."""

from ml_collections import ConfigDict


def add_order_model(config: ConfigDict, model: str) -> None:
    """The order model, and how it is decoded."""
    config.model = model  # default, a folder, or owner/name on the hub
    config.revision = ""  # commit, branch or tag on the hub
    config.converters = ""  # folder of bin converters, if they are not beside the model
    config.dtype = "float32"  # of the model: float32 or bfloat16
    config.context = "auto"  # rolling (one layer), refresh or recompute; auto: rolling for one layer, else refresh
    config.refresh_every = 448  # steps between two refreshes of a context, in refresh
    config.margin = 64  # tokens beyond one a step that fit between two refreshes, in refresh
    config.rows = 0  # trajectories decoded together, which fixes the bits; 0: 64 on a CPU, all of them elsewhere


def add_rollouts(config: ConfigDict, most_at_once: int | None = None) -> None:
    """How futures are drawn; `most_at_once` of None leaves that key out."""
    config.temperature = 1.0  # of the model's sampling
    config.rollout_capacity = 0  # resting orders a side in the futures; 0: those at the start and 600 to 727 more
    config.chunk_steps = 64  # decisions in one compiled call; no result depends on it
    if most_at_once is not None:
        config.most_at_once = most_at_once  # trajectories in one batch, at least those of one start


def add_market(config: ConfigDict, capacity: int, trade_width: int, session: str) -> None:
    """The market before the futures."""
    config.tick = 100  # smallest price step, 1e-4 of the currency
    config.capacity = capacity  # resting orders a side in the orders before a start
    config.trade_width = trade_width  # transactions listed per order, and orders that one listed cancel may hit
    config.session = session  # chinese (call auctions) or continuous
    config.start_time = "09:30:00"  # of a continuous session and of the noise agent
    config.end_time = "16:00:00"  # of a continuous session, included


def add_noise(config: ConfigDict) -> None:
    """The noise agent."""
    config.noise_minutes = 30  # of the noise agent before the start
    config.noise_seed = 0  # of the noise agent
    config.interval_s = 1.0  # mean time between two wake-ups of the noise agent
    config.init_price = 100_000  # around which the noise agent starts, 1e-4 of the currency
