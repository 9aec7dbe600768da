"""Who trades: pure functions from what an agent sees and a key to the orders that it sends.

What an agent is (module `base`; start here for one of your own):
  `Agent`: the members that it must have: `init`, `act`, `on_event`, a name, an account, sizes and delays.
  `Observation`: what it knows when it wakes up; `Account` and `Resting` are parts of it.
  `Action`: what it does then.
  `AgentEvent`: an order that reached the exchange, anyone's, as the agent hears of it.
  `Latency`, `NO_LATENCY`: delays between it and the exchange.
Executions of a number of shares:
  `Twap`: in equal parts over a time, passive first (reference: TWAP agent).
  `Vwap`: as the volume of a day is spread.
  `Participation`: a fixed part of what others trade.
  `Immediate`: all at once.
  `Metered`: any agent, with its fills by minute.
Manipulations, to learn how to find them:
  `Spoofing`: large orders that are taken back before they trade; at several prices: layering.
  `PumpAndDump`: buys until the price has risen, then sells.
  `WashTrades`: trades with itself.
Market making:
  `AvellanedaStoikov`: two quotes around a price that shifts with what is held.
Random orders, and the order model:
  `NoiseSpec`: what the noise agent draws from; module `noise` draws.
  `background`: an order of the order model's sampled token.
What they share:
  `check`: whether an agent fits the engine, by shapes alone.
  `execution`: targets, schedules and orders of executions.
  `quotes`: prices to go by where a side is empty, best prices of the others.
  `requoting`: from what is to rest to orders, without giving up places in the queue.
"""

from marsjax.agents import background, base, check, execution, noise, quotes, requoting
from marsjax.agents.avellaneda_stoikov import AvellanedaStoikov
from marsjax.agents.base import (
    NO_LATENCY,
    Account,
    Action,
    Agent,
    AgentEvent,
    Latency,
    Observation,
    Resting,
)
from marsjax.agents.immediate import Immediate
from marsjax.agents.metered import Metered
from marsjax.agents.noise import NoiseSpec
from marsjax.agents.participation import Participation
from marsjax.agents.pump import PumpAndDump
from marsjax.agents.spoofing import Spoofing
from marsjax.agents.twap import Twap
from marsjax.agents.vwap import Vwap
from marsjax.agents.wash import WashTrades

__all__ = [
    "NO_LATENCY", "Account", "Action", "Agent", "AgentEvent", "AvellanedaStoikov", "Immediate", "Latency",
    "Metered", "NoiseSpec", "Observation", "Participation", "PumpAndDump", "Resting", "Spoofing", "Twap", "Vwap",
    "WashTrades", "background", "base", "check", "execution", "noise", "quotes", "requoting",
]  # fmt: skip
