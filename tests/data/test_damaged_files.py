"""Readers and damaged files: what was read before, or one line that names the file; see `tests/data/damage.py`."""

import functools
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest

from marsjax.core.errors import InputError
from marsjax.data import coinbase, databento, lobster, neutral, sse, szse
from tests.data import damage, shenzhen_day, test_coinbase, test_databento, test_lobster_book
from tests.peak_memory import peak_bytes

WHOLE = r"[+-]?[0-9]+(?:\.0*)?(?:[eE]\+?[0-9]+)?"
NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
CLOCK = r"[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?"
TIME = f"{CLOCK}|[0-9]{{8,9}}|[0-9]{{17}}"
SSE = dict.fromkeys(("OrderType", "OrderQty", "OrderBSFlag", "ApplSeqNum", "OrderNO"), WHOLE) | {
    "MDTime": TIME, "OrderPrice": NUMBER}
SSE_TRADES = dict.fromkeys(("TradeBuyNo", "TradeSellNo", "TradeBSFlag", "TradeQty", "ApplSeqNum"), WHOLE) | {
    "MDTime": TIME, "TradePrice": NUMBER}
SZSE = {"ApplSeqNum": WHOLE, "TransactTime": TIME, "OrdType": "[123U]|49|50|85", "Side": "[12BS]|49|50",
        "Price": NUMBER, "OrderQty": WHOLE}  # fmt: skip
SZSE_TRADES = {"ApplSeqNum": WHOLE, "TransactTime": TIME, "ExecType": "[F4]|70|52", "BidApplSeqNum": WHOLE,
               "OfferApplSeqNum": WHOLE, "LastPx": NUMBER, "LastQty": WHOLE}  # fmt: skip
NEUTRAL = dict.fromkeys(("time_ns", "price", "volume", "order_id", "cancel_id", "agent_id"), WHOLE) | {
    "type": "[SBC]", "cancel_type": "S|B|None"}
STAMP = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:Z|[+-][0-9]{2}:?[0-9]{2})|[0-9]+"
UUID = "[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
DATABENTO = {"ts_recv": ".*", "ts_event": STAMP, "publisher_id": WHOLE, "instrument_id": ".*", "action": "[ACMRTFN]",
             "side": "[ABN]", "price": f"(?:{NUMBER})?", "size": WHOLE, "order_id": "[0-9]+", "flags": WHOLE}
COINBASE = dict.fromkeys(("price", "size", "remaining_size"), f"(?:{NUMBER})?") | dict.fromkeys(
    ("order_id", "maker_order_id", "taker_order_id"), f"(?:{UUID})?") | {
    "time": STAMP, "sequence": WHOLE, "type": "received|open|match|done|change|activate", "side": "buy|sell"}
COINBASE_BOOK = {"sequence": WHOLE, "side": "buy|sell", "price": NUMBER, "size": NUMBER, "order_id": UUID}
LOBSTER = {"time": NUMBER} | dict.fromkeys(("type", "order_id", "size", "price", "direction"), WHOLE)
LOBSTER_BOOK = dict.fromkeys(("a", "b", "c", "d", "e", "f", "g", "h"), WHOLE)


def databento_day(folder: Path) -> list[Path]:
    lines = [line for line in test_databento.random_feed(0, 60, "itch")[0] if line.endswith("AAA")]
    return [test_databento.write(folder, lines)]


def coinbase_day(folder: Path) -> list[Path]:
    channel, before, _ = test_coinbase.random_market(0, 40)
    return channel.write(folder, before)


def lobster_day(folder: Path) -> list[Path]:
    return list(test_lobster_book.write(folder, *test_lobster_book.random_market(0, 60, 2)))


def sse_day(folder: Path) -> list[Path]:
    adds = [f"20230711,09:{15 + i // 6}:{i % 6}0.{i:03}0,2,{10 + i % 2 * 0.5 + i / 100:.2f},{100 * (i + 1)},"
            f"{2 if i % 2 else 1},{2 * i},{1000 + 7 * i},600000.SH" for i in range(30)]
    cancels = [f"20230711,10:00:0{i}.500,10,{10 + i / 50:.2f},{100 * (2 * i + 1)},1,{100 + i},{1000 + 14 * i},600000.SH"
               for i in range(5)]
    trades = [f"20230711,10:30:{i}0.120,{2000 + i},1007,1,10.51,10,{200 + i},600000.SH" for i in range(6)]
    return written(folder, "600000_20230711", (
        ["MDDate,MDTime,OrderType,OrderPrice,OrderQty,OrderBSFlag,ApplSeqNum,OrderNO,SecurityID", *adds, *cancels],
        ["MDDate,MDTime,TradeBuyNo,TradeSellNo,TradeBSFlag,TradePrice,TradeQty,ApplSeqNum,SecurityID", *trades]))


def neutral_day(folder: Path) -> list[Path]:
    rng = np.random.default_rng(1)
    rows = [f"{34200 * 10**9 + 10**8 * i},{'SB'[i % 2]},{100_000 + 100 * int(rng.integers(-9, 9))},"
            f"{int(rng.integers(1, 900))},{i},None,-1,{i % 3}" for i in range(60)]
    rows += [f"{34300 * 10**9 + i},C,0,1,-1,{'SB'[i % 2]},{i},0" for i in range(9)]
    return written(folder, "day", ([",".join(neutral.COLUMNS), *rows],), ("orders",))


def written(folder: Path, name: str, files: tuple[list[str], ...], whats=("orders", "trades")) -> list[Path]:
    paths = [folder / f"{name}_{what}.csv" for what in whats]
    for path, lines in zip(paths, files, strict=True):
        path.write_text("\n".join(lines) + "\n")
    return paths


READERS = {
    "neutral": (neutral_day, neutral.read, [NEUTRAL]), "sse": (sse_day, sse.read, [SSE, SSE_TRADES]),
    "szse": (shenzhen_day.write, szse.read, [SZSE, SZSE_TRADES]),
    "databento": (databento_day, databento.read, [DATABENTO]),
    "coinbase": (coinbase_day, coinbase.read, [COINBASE, COINBASE_BOOK]),
    "lobster": (lobster_day, functools.partial(lobster.read, follow=True), [LOBSTER, LOBSTER_BOOK])}
HEADLESS = {"lobster"}  # files without names of columns


def content(read, paths: list[Path]) -> list[tuple]:
    chunks = list(read(*paths))
    whole = [jax.tree.map(lambda *x: np.concatenate(x), *(getattr(chunk, name) for chunk in chunks))
             for name in ("orders", "sequence")]
    return [x.tolist() for x in jax.tree.leaves(whole)]


def check(reader: str, folder: Path, seeds: range) -> Counter:
    """Damages one file of the reader's a time; AssertionError where it is read in silence, or fails in another way."""
    make, read, patterns = READERS[reader]
    whole = make(folder)
    expected = content(read, whole)
    texts = [path.read_bytes() for path in whole]
    kinds = [kind for kind in damage.PLAIN | damage.PACKED if reader not in HEADLESS or kind != "swap"]
    outcomes = Counter()
    for seed in seeds:
        rng = np.random.default_rng(seed)
        kind, number = kinds[seed % len(kinds)], int(rng.integers(len(whole)))
        damaged = (damage.PLAIN | damage.PACKED)[kind](rng, texts[number])
        whole[number].write_bytes(damaged)
        began = time.process_time()
        try:
            outcome = "equal" if content(read, whole) == expected else "other"
        except (InputError, OSError) as error:
            outcome = "refused"
            text = str(error)
            assert any(str(path) in text for path in whole), (kind, seed, text)
            assert "\n" not in text, (kind, seed, text)
            assert len(text) < 700 + 2 * len(str(folder)), (kind, seed, text)
        if outcome == "other":
            assert kind in damage.PLAIN, (kind, seed)
            header = ",".join(patterns[number]).encode() + b"\n" if reader in HEADLESS else b""
            assert damage.is_good(header + damaged, patterns[number]), (kind, seed, damaged)
            outcome = "good all the same"
        assert kind != "swap" or outcome == "equal", (kind, seed)
        assert time.process_time() - began < 10, (kind, seed)
        outcomes[kind, outcome] += 1
        whole[number].write_bytes(texts[number])
    return outcomes


@pytest.mark.parametrize("reader", READERS)
def test_damaged_files_are_refused_or_read_as_before(tmp_path, reader):
    outcomes = check(reader, tmp_path, range(112))
    refused = sum(count for (_, outcome), count in outcomes.items() if outcome == "refused")
    assert refused > 56


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_a_thousand_damaged_files_in_little_memory(tmp_path, reader):
    code = f"from tests.data import test_damaged_files as t; t.measured({reader!r}, {str(tmp_path)!r})"
    ran = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=900,
                         cwd=Path(__file__).parents[2])
    assert ran.returncode == 0, ran.stderr[-3000:]
    found = json.loads(ran.stdout)
    assert found["files"] == 1008
    assert found["peak_bytes"] < 2 * 10**9
    assert found["refused"] > 500


def measured(reader: str, folder: str) -> None:
    """Of a process of its own: what `check` finds, and the most memory held."""
    outcomes = check(reader, Path(folder), range(1000, 2008))
    refused = sum(count for (_, outcome), count in outcomes.items() if outcome == "refused")
    peak = peak_bytes()
    print(json.dumps({"files": sum(outcomes.values()), "refused": refused, "peak_bytes": peak}))


def test_what_is_good_is_told_from_what_is_not():
    good = b"time_ns,type,price,volume,order_id,cancel_type,cancel_id,agent_id\n1,S,100100,300,1,None,-1,0\n"
    assert damage.is_good(good, NEUTRAL)
    for old, new in ((b"S", b"X"), (b"300", b"3x0"), (b",300", b",300,"), (b"None", b""), (b"price", b"prize"),
                     (b"300", b'"300'), (b"300", b"3\x0000"), (b"300", b"\xff")):
        assert not damage.is_good(good.replace(old, new), NEUTRAL), new
