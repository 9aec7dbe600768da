"""Days of made-up orders in the files of the Shanghai exchange, of LOBSTER, and as plain CSV."""

from pathlib import Path

import numpy as np

from marsjax.data import neutral

ORDERS = "MDTime,OrderType,OrderPrice,OrderQty,OrderBSFlag,ApplSeqNum,OrderNO"
TRADES = "MDTime,TradeBuyNo,TradeSellNo,TradeBSFlag,TradePrice,TradeQty,ApplSeqNum"


def write_day(folder: Path, symbol: str = "600000", begin_s: int = 34_200, moves: bool = False) -> None:
    """Eight minutes of orders and deletes around 10.00 that never cross; the day has no trades.

    The best prices are the same all day; if it `moves`, the best ask is deleted after six minutes.
    """
    rng, rows, resting, now = np.random.default_rng(1), [], [], begin_s * 1000
    for number in range(600):
        now += int(rng.integers(1, 1600))
        at = f"{now // 3_600_000:02d}:{now // 60_000 % 60:02d}:{now // 1000 % 60:02d}.{now % 1000:03d}"
        is_late = moves and number >= 470
        best = [i for i, order in enumerate(resting) if is_late and order[:2] == (1001, 2)]
        if best or (len(resting) > 20 and rng.random() < 0.48):
            price, side, order = resting.pop(best[0] if best else int(rng.integers(len(resting))))
            kind = 10
        else:
            side, order, kind = int(rng.integers(1, 3)), number, 2
            price = 1000 + (1 if side == 2 else -1) * int(rng.integers(2 if is_late and side == 2 else 1, 6))
            resting.append((price, side, order))
        rows.append(f"{at},{kind},{price / 100:.2f},100,{side},{number},{order}")
    (folder / f"{symbol}_20230711_orders.csv").write_text("\n".join([ORDERS, *rows]) + "\n")
    (folder / f"{symbol}_20230711_trades.csv").write_text(TRADES + "\n")


def write_traded_day(folder: Path, minutes: int = 8, begin_s: int = 34_200) -> None:
    """The same made-up minutes as orders.csv and as LOBSTER's two files: orders around 10.00, deletes and trades."""
    rng, resting, now = np.random.default_rng(2), dict[int, list[int]](), begin_s * 10**9
    rows, messages, books = [",".join(neutral.COLUMNS)], list[str](), list[str]()
    for number in range(minutes * 70):
        now += int(rng.integers(1, 1600)) * 10**6
        side, draw = int(rng.integers(2)), rng.random()  # 0 asks, 1 bids
        mine = [own for own, order in resting.items() if order[0] == side]
        kind, volume = 1, 100 * int(rng.integers(1, 30))
        price = 100_000 + (1 - 2 * side) * 100 * int(rng.integers(1, 9))
        own = number
        if draw < 0.3 and len(mine) > 8:  # a delete
            own = mine[int(rng.integers(len(mine)))]
            kind, (_, price, volume) = 3, resting.pop(own)
            rows.append(f"{now},C,{price},{volume},-1,{'SB'[side]},{own},0")
        elif draw < 0.5 and len(mine) > 8:  # an order that takes some of the first at the best price
            own = min(mine, key=lambda x: (resting[x][1] * (1 - 2 * resting[x][0]), x))
            kind, price, volume = 4, resting[own][1], min(volume, resting[own][2])
            rows.append(f"{now},{'BS'[side]},{price},{volume},{number},None,-1,{number % 3}")
            resting[own][2] -= volume
            if not resting[own][2]:
                del resting[own]
        else:
            rows.append(f"{now},{'SB'[side]},{price},{volume},{own},None,-1,{own % 3}")
            resting[own] = [side, price, volume]
        messages.append(f"{now // 10**9}.{now % 10**9:09d},{kind},{own + 1},{volume},{price},{2 * side - 1}")
        books.append(_levels(resting))
    (folder / "orders.csv").write_text("\n".join(rows) + "\n")
    for what, lines in (("message", messages), ("orderbook", books)):
        (folder / f"TEST_2020-01-02_34200000_57600000_{what}_10.csv").write_text("\n".join(lines) + "\n")


def _levels(resting: dict[int, list[int]]) -> str:
    found = []
    for side, dummy in ((0, 9_999_999_999), (1, -9_999_999_999)):
        prices = sorted({order[1] for order in resting.values() if order[0] == side}, reverse=side == 1)
        found.append([(price, sum(order[2] for order in resting.values() if order[:2] == [side, price]))
                      for price in prices] + [(dummy, 0)] * (10 - len(prices)))
    return ",".join(f"{a},{b},{c},{d}" for (a, b), (c, d) in zip(*found, strict=True))
