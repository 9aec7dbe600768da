"""Starting states: a market after given orders, or after the noise agent has traded in it alone.

What a trajectory starts from:
  `Start`: market, the last tokens, and the time of the first decision.
  `resize`: the same state in a book of another capacity.
After given orders (a replay that stops):
  `from_feed`: the state of a feed at a time.
  `from_feed_at`: the states at several times of a day, in one pass.
  `after_orders`: the state that an array of orders leads to.
  `Passed`: the orders between two of these times, and what came of them; `joined` makes one of several.
After a rollout:
  `after_rollout`: where a trajectory can be gone on from.
After the noise agent (reference: noise agent):
  `noise`: markets in which it trades alone, and the orders that it sends.
  `noise_observed`: the same for thousands of markets: a function of yours keeps what it wants of every wake-up.
  `WakeUp`: what that function is given.
  `NoiseRun`: what comes of it: markets, what was kept, seconds.
  `Warmup`: when the agent trades, and in what chunks.
"""

from marsjax.sim.initial.from_noise import NoiseRun, WakeUp, Warmup, noise, noise_observed
from marsjax.sim.initial.from_orders import Passed, after_orders, from_feed, from_feed_at, joined
from marsjax.sim.initial.from_rollout import after_rollout
from marsjax.sim.initial.state import Start, resize

__all__ = ["NoiseRun", "Passed", "Start", "WakeUp", "Warmup", "after_orders", "after_rollout",
           "from_feed", "from_feed_at", "joined",
           "noise", "noise_observed", "resize"]
