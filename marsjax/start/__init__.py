"""Starting states: a market warmed up by the noise agent (reference: noise agent), or by given orders."""

from marsjax.start.given import Passed, from_feed, from_feed_at
from marsjax.start.state import Start, resize
from marsjax.start.warmup import NoiseRun, WakeUp, Warmup, noise, noise_watched

__all__ = ["NoiseRun", "Passed", "Start", "WakeUp", "Warmup", "from_feed", "from_feed_at", "noise", "noise_watched",
           "resize"]
