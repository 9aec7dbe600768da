"""A plain-Python event queue of one trajectory: the oracle of `sim.event_queue` and `sim.event_loop`."""

import copy
import heapq
from typing import Any, NamedTuple

from marsjax.core.records import NO_ID, Kind, Side, Status
from tests.twin import Message
from tests.twin_exchange import Timed, TwinExchange

ORDER, WAKE = 0, 100


class LogRow(NamedTuple):
    """An order that reached the exchange."""

    time_ns: int
    source: int
    kind: int
    price: int
    volume: int
    status: int
    order_id: int
    cancels: tuple[tuple[int, int], ...]
    """Ids and shares of a cancel by price."""


class ScriptedAgent:
    """Does what its script says, at prices that depend on all that it may know."""

    def __init__(self, script: dict[str, Any], account: int, communication_ns: int, computation_ns: int,
                 in_flight: int) -> None:
        self.script, self.account, self.c, self.k = script, account, communication_ns, computation_ns
        self.in_flight, self.flying, self.wakes, self.heard, self.refused, self.unsent = in_flight, 0, 0, 0, 0, 0
        self.stopped = False


class Queue:
    """Runs one trajectory until `end_ns`."""

    def __init__(self, exchange: TwinExchange, agents: list[ScriptedAgent], plans: list[tuple[int, int, int, int]],
                 upper_wins: list[int], start_ns: int, end_ns: int) -> None:
        self.exchange, self.agents, self.plans = copy.deepcopy(exchange), agents, plans
        self.upper_wins = upper_wins
        self.start_ns, self.end_ns, self.pushed = start_ns, end_ns, 0
        self.heap: list[tuple[int, int, int, Any]] = []
        self.rows: list[LogRow] = []
        self.decided = 0

    def push(self, time_ns: int, priority: int, what: Any) -> None:
        heapq.heappush(self.heap, (time_ns, priority, self.pushed, what))
        self.pushed += 1

    def run(self) -> None:
        self.push(self.start_ns, WAKE, ("decide",))
        for agent in self.agents:
            self.push(self.start_ns, WAKE, ("wake", agent))
        while self.heap and self.heap[0][0] <= self.end_ns:
            time_ns, _, _, what = heapq.heappop(self.heap)
            getattr(self, what[0])(time_ns, *what[1:])

    def decide(self, now: int) -> None:
        kind, offset, volume, wait = self.plans[self.decided]
        self.decided += 1
        price = self.exchange.book.view()["mid_price"] + offset
        if now + wait <= self.end_ns:
            self.push(now + wait, WAKE, ("send", kind, price, volume))

    def send(self, now: int, kind: int, price: int, volume: int) -> None:
        if kind == Kind.CANCEL:
            self.cancel_near(now, price, volume)
        else:
            self.submit(now, 0, Message(kind, price, volume, NO_ID, account=1))
        self.push(now, WAKE, ("decide",))

    def cancel_near(self, now: int, price: int, volume: int) -> None:
        own = [(side, r) for side in Side for r in self.exchange.book.by_priority(side) if r.account in (0, 1)]
        taken: list[tuple[int, int]] = []
        if own:
            up = -1 if self.upper_wins[self.decided - 1] else 1
            near = up * min((abs(r.price - price), up * r.price) for _, r in own)[1]
            for side, resting in own:
                if resting.price == near and volume > 0:
                    share = min(volume, resting.volume)
                    volume -= share
                    number = resting.order_id
                    self.exchange.submit(Timed(now, Message(Kind.CANCEL, 0, share, NO_ID, side, number, account=1)))
                    taken.append((number, share))
        self.note(LogRow(now, 0, Kind.CANCEL, price, 0, 0, NO_ID, tuple(taken)))

    def submit(self, now: int, source: int, message: Message) -> None:
        if source and message.kind == Kind.CANCEL and not any(
                r.order_id == message.cancel_id and r.account == message.account
                for r in self.exchange.book.by_priority(Side(message.cancel_side))):
            status, number = Status.UNKNOWN_ID, NO_ID
        else:
            answer = self.exchange.submit(Timed(now, message))
            status, number = answer.status, answer.order_id
        if source:
            self.agents[source - 1].refused += status != Status.ACCEPTED
        self.note(LogRow(now, source, message.kind, message.price, message.volume, status, number, ()))

    def arrive(self, now: int, agent: ScriptedAgent, message: Message) -> None:
        agent.flying -= 1
        self.submit(now, 1 + self.agents.index(agent), message)

    def note(self, row: LogRow) -> None:
        self.rows.append(row)
        for agent in self.agents:
            agent.heard += 1

    def wake(self, seen_ns: int, agent: ScriptedAgent) -> None:
        """The agent's own clock shows c more than the exchange's."""
        row, now = agent.wakes, seen_ns + agent.c
        agent.wakes += 1
        book = self.exchange.book
        bid = book.view()["bid_price"][0] or 100_000
        base = bid + 100 * (self.exchange.holdings[agent.account] // 100 % 3) + 100 * (agent.heard % 2)
        for kind, offset, volume in agent.script["orders"][row]:
            if kind == Kind.NONE:
                continue
            message = Message(kind, base + 100 * offset, volume, NO_ID, account=agent.account)
            if kind == Kind.CANCEL:
                side = Side(offset % 2)
                own = sorted((r.order_id, r.volume) for r in book.by_priority(side) if r.account == agent.account)
                number, rests = own[0] if own else (3, volume)  # without orders of its own it tries another's
                message = Message(Kind.CANCEL, 0, rests, NO_ID, side, number, account=agent.account)
            if agent.flying >= agent.in_flight:
                agent.unsent += 1
                continue
            agent.flying += 1
            self.push(now + agent.k + agent.c, ORDER, ("arrive", agent, message))
        delay = agent.script["delay_ns"][row]
        if delay > 0:
            self.push(now + delay - agent.c, WAKE, ("wake", agent))
        else:
            agent.stopped = True
