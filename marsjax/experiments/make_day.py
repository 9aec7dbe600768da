"""A day that an order model writes from a real state, for others to start from. The config: configs/make_day.py."""

import re
import time

from ml_collections import ConfigDict

from marsjax.core.errors import InputError
from marsjax.data import made_days as made_files
from marsjax.experiments import launcher, markets, run_folder, setup
from marsjax.experiments.run_folder import write_json
from marsjax.studies import made_days, order_model, starts
from marsjax.studies.made_days import MakingSpec
from marsjax.studies.session_times import check_time, spell

_NAME = re.compile(r"[a-z][a-z0-9_]*")


def main(config: ConfigDict) -> int:
    """Makes the day; returns 0, or INCOMPLETE with the reasons on stderr."""
    began = time.perf_counter()
    if not _NAME.fullmatch(config.name):
        raise InputError(f"config.name: expected small letters, digits and _, got {config.name!r}")
    spec = setup.spec_of(MakingSpec, config, begin_ns=setup.time_ns(config, "day_begins"))
    feeds = markets.open_feeds(config)
    if len(feeds) > 1:
        raise InputError(f"config.symbol, config.date: expected one day of one symbol, got {config.symbol!r} and "
                         f"{config.date!r}: {', '.join(each.name for each in feeds)}")
    market, at_ns = markets.one_market(config, feeds, made_days.ACCOUNTS), setup.time_ns(config, "time")
    check_time(market.session, at_ns, 0)
    prepared = setup.load_order_model(config)
    output = run_folder.of_config(config, f"make_day_{config.name}")
    with output as folder:
        print(order_model.headline(prepared, config.model), flush=True)
        found = starts.states_of_feed(market, prepared, feeds[0], [at_ns])
        refused, problems = markets.refused(feeds[0].name, found.refused)
        made = made_days.make(prepared, market, found.starts[0], spec)
        about = {"model": config.model, "sha256": order_model.parameters_hash(prepared.model.model), **made.about}
        made_files.write(folder, config.name, made.venue, made.start_ns, made.tables, about)
        seconds = time.perf_counter() - began
        write_json(folder / "summary.json", {"day": about, "feed": refused, "seconds": round(seconds, 3),
                                             **setup.about(config, prepared)})
    left_out = about["others_left_out"]
    print(f"{config.name}: {about['orders']} orders from {spell(spec.begin_ns)} to {spell(made.start_ns)}; then mid "
          f"{about['mid']:g}, spread {about['spread']}, {about['bids']} bids and {about['asks']} asks; left out at the "
          f"beginning, as not the model's: {left_out['orders']} of {left_out['of']} orders")
    print(f"{seconds:.1f} s; {run_folder.told(output)}")
    return launcher.finish(problems)


if __name__ == "__main__":
    launcher.run("make_day", main)
