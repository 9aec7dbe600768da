"""A day of made-up orders in the files of the Shanghai exchange."""

from pathlib import Path

import numpy as np

ORDERS = "MDTime,OrderType,OrderPrice,OrderQty,OrderBSFlag,ApplSeqNum,OrderNO"
TRADES = "MDTime,TradeBuyNo,TradeSellNo,TradeBSFlag,TradePrice,TradeQty,ApplSeqNum"


def write_day(folder: Path, symbol: str = "600000", begin_s: int = 34_200) -> None:
    """Eight minutes of orders and deletes around 10.00 that never cross; the day has no trades."""
    rng, rows, resting, now = np.random.default_rng(1), [], [], begin_s * 1000
    for number in range(600):
        now += int(rng.integers(1, 1600))
        at = f"{now // 3_600_000:02d}:{now // 60_000 % 60:02d}:{now // 1000 % 60:02d}.{now % 1000:03d}"
        if len(resting) > 20 and rng.random() < 0.48:
            price, side, order = resting.pop(int(rng.integers(len(resting))))
            kind = 10
        else:
            side, order, kind = int(rng.integers(1, 3)), number, 2
            price = 1000 + (1 if side == 2 else -1) * int(rng.integers(1, 6))
            resting.append((price, side, order))
        rows.append(f"{at},{kind},{price / 100:.2f},100,{side},{number},{order}")
    (folder / f"{symbol}_20230711_orders.csv").write_text("\n".join([ORDERS, *rows]) + "\n")
    (folder / f"{symbol}_20230711_trades.csv").write_text(TRADES + "\n")
