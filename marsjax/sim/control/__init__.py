"""Controlled futures: given scenarios, or a curve of prices, while all orders still answer to one another.

  `controlled`: futures that fit a guide (`run`); `ControlledRollout` is what they come to.
  `ControlSpec`: how often they are looked at, and among which they are resampled.
  `Guide`: what a guide must have; `CurveGuide` and `TargetGuide` are two, `Target` is a part of the second.
  `scenarios`: guides by name: drop, rise, reversal, calm, burst, illiquid.
  `nearest`: which of several candidates fits a guide best.
  `ControlModels`: what leads futures, where they are led; `Led` is what they were told.
How it works, for those who change it:
  `leading`: what each trajectory is told of its next orders.
  `resampling`: which trajectories go on, and in whose places.
  `lineages`: what the trajectories that are left came from.
"""

from marsjax.sim.control import guides, leading, lineages, resampling, scenarios
from marsjax.sim.control.guides import CurveGuide, Guide, Target, TargetGuide, nearest
from marsjax.sim.control.leading import ControlModels, Led
from marsjax.sim.control.lineages import ControlledRollout
from marsjax.sim.control.run import controlled
from marsjax.sim.control.spec import ControlSpec

__all__ = ["ControlModels", "ControlSpec", "ControlledRollout", "CurveGuide", "Guide", "Led", "Target", "TargetGuide",
           "controlled", "guides", "leading", "lineages", "nearest", "resampling", "scenarios"]
