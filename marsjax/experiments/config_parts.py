"""Keys that several configs share, with their comments, which `:help` prints."""

from ml_collections import ConfigDict


def add_order_model(config: ConfigDict, model: str) -> None:
    """The order model, and how it is decoded."""
    config.model = model  # default, a folder, or owner/name on the hub
    config.revision = ""  # commit, branch or tag on the hub
    config.converters = ""  # folder of bin converters, if they are not beside the model
    config.ignore_keys = ()  # unknown keys of a published model's config.json to pass over
    config.dtype = "float32"  # of the model: float32 or bfloat16
    # rolling (one layer), refresh, recompute or recurrent (linear attention); auto: recurrent for linear attention, of
    # others rolling for one layer and refresh for more
    config.context = "auto"
    config.refresh_every = 448  # steps between two refreshes of a context, in refresh
    config.margin = 64  # tokens beyond one a step that fit between two refreshes, in refresh
    config.cache_dtype = "model"  # of keys and values: model, its own; int8, half of bfloat16 and less exact
    config.prefix = "auto"  # slots that a start's futures share, in refresh: own, shared (read once); auto: by device
    config.rows = 0  # trajectories decoded together, which fixes the bits; 0: 64 on a CPU, all of them elsewhere


def add_adaptation(config: ConfigDict) -> None:
    """Whether a model learns from the day that it goes on from."""
    config.adapt_steps = 40  # on the orders before the (first) start, if the model was not trained on that day; 0: none


def add_rollouts(config: ConfigDict, most_at_once: int | None = None) -> None:
    """How futures are drawn; `most_at_once` of None leaves that key out."""
    config.temperature = 1.0  # of the model's sampling
    config.rollout_capacity = 0  # resting orders a side in the futures; 0: those at the start and 600 to 727 more
    config.chunk_steps = 0  # decisions in one compiled call, no result depends on it; 0: 64 on a CPU, 256 on a GPU
    config.devices = 0  # of this process, which share the trajectories; 0 or all: all there are
    if most_at_once is not None:
        config.most_at_once = most_at_once  # trajectories in a batch, at least those of a start; 0 or auto: what fits


def add_feed(config: ConfigDict, chosen: ConfigDict, source: str) -> None:
    """Which days of real orders; `chosen` holds FEED_ARGUMENTS."""
    config.source = source  # noise, or a kind of feed: csv, sse, lobster ... (docs/feeds.md)
    config.folder = chosen.folder or f"data/{source}"  # where the files of the days are
    config.file = chosen.file  # csv, databento: one file instead
    config.symbol = chosen.symbol  # one symbol, several joined by +, or all
    config.date = chosen.date  # one date as in the file names; empty: all
    # lobster, databento: executions of one aggressor become one order (else one a message)
    config.grouped = READER_KEYS["grouped"]
    # lobster: the book file beside the messages puts the book right after every row
    config.follow = READER_KEYS["follow"]
    config.time_zone = READER_KEYS["time_zone"]  # databento: of the exchange; empty: as the data set says
    config.book = READER_KEYS["book"]  # csv: a file of the orders that rest before the first one


FEED_ARGUMENTS = {"folder": "", "file": "", "symbol": "all", "date": ""}
"""Of a config that has days of real orders."""
FEED_IGNORED = {"noise": tuple(FEED_ARGUMENTS), "csv": ("folder", "symbol", "date")} | dict.fromkeys(
    ("coinbase", "lobster", "sse", "szse"), ("file",))
"""Those of them that have no effect, by the source."""


def add_market(config: ConfigDict, is_noise: bool, trade_width: int = 0) -> None:
    """The market that the orders are replayed in: that of the feed, but for what is set here."""
    config.tick = 100 if is_noise else 0  # smallest price step, in price_unit; 0: as the feed says
    config.capacity = 256 if is_noise else 0  # resting orders a side before the futures; 0: as the feed says
    # Transactions listed per order, and orders that one listed cancel may hit; 0: as the feed says.
    config.trade_width = trade_width
    config.session = "continuous" if is_noise else "feed"  # chinese (call auctions), continuous, or as the feed says
    config.auction_rule = "feed"  # of call auctions: reference, shanghai, shenzhen, or as the feed says
    # Of a continuous session and of the noise agent, HH:MM:SS; empty: from the first trading of the feed's session.
    config.start_time = "09:30:00" if is_noise else ""
    config.end_time = "16:00:00" if is_noise else ""  # of a continuous session, included; empty: as start_time
    config.price_unit = ""  # currency that one unit of a price stands for; empty: as the feed says, or 0.0001
    config.volume_unit = ""  # shares, coins or contracts that one unit of a volume stands for; empty: likewise, or 1
    config.currency = ""  # its code, for the tables; empty: as the feed says


def add_tokens(config: ConfigDict, small: bool) -> None:
    """What days are made into for a training; `small`: for few data."""
    config.validation_from = "13:30:00"  # of each day: orders from here decide when to stop, and none trains
    config.held_from = "14:00:00"  # of each day: orders from here are for the report alone
    config.held_out_symbols = ""  # symbols whose days are held out, joined by +
    config.mirror = small  # train on each day's mirror image too: buys for sells, prices reflected
    config.price_bins = 32  # of prices less mid
    config.volume_bins = 32  # of volumes
    config.interval_bins = 16  # of times between orders
    config.level_bins = 32  # of volumes in the book
    config.signals = small  # whether tokens say more of the market than the reference's (trend, spread, touch, price)


MARKET_KEYS = ("tick", "capacity", "trade_width", "session", "auction_rule", "start_time", "end_time", "price_unit",
               "volume_unit", "currency")
"""Those of `add_market`."""
READER_KEYS = {"grouped": True, "follow": True, "time_zone": "", "book": ""}
"""Those of `add_feed` that single readers take, as they are unless they are set."""


def add_strategy(config: ConfigDict) -> None:
    """How an execution trades, by the strategy that takes the key."""
    config.passive_seconds = 10  # twap: from a passive wake-up to the aggressive one
    config.idle_seconds = 5  # twap: from an aggressive wake-up to the next passive one
    config.max_passive_volume_ratio = 0.9  # twap: of the target, largest volume resting at the best price
    config.max_aggressive_volume_ratio = 1.0  # twap: of the target, largest aggressive order
    config.interval_seconds = 5  # vwap and participation: between two wake-ups
    config.participation_ratio = 0.25  # participation: shares for each that others trade
    config.price_change = 0  # beyond the best price, 1e-4 of the currency
    config.sweep = 5000  # immediate: the limit beyond the best price, 1e-4 of the currency


def add_tables(config: ConfigDict) -> None:
    """The form of the tables."""
    config.tables = "csv"  # csv, or parquet (which needs pyarrow: pip install 'marsjax[parquet]')
    config.prices = "integer"  # integer: numbers of price_unit and volume_unit, which the tables name; or currency


def add_noise(config: ConfigDict) -> None:
    """The noise agent."""
    config.noise_minutes = 30  # of the noise agent before the start
    config.noise_seed = 0  # of the noise agent
    config.interval_s = 1.0  # mean time between two wake-ups of the noise agent
    config.init_price = 100_000  # around which the noise agent starts, 1e-4 of the currency
