"""A day at Shenzhen, made up row by row from the published layout and rules: no real rows are among it.

Each line: ApplSeqNum, time, and an order (type, side, price, volume), a trade (buyer, seller, price, volume) or a
cancel (the number of the order on its side). Numbers that are missing are other symbols' of the channel.
"""

DAY = """
10 09:15:00.010 order 2 B 10.00 1000
12 09:15:01.000 order 2 S 9.98 600
15 09:16:00.000 order 2 S 10.05 500
17 09:18:00.500 order 2 B 9.95 300
18 09:19:00.000 cancel 17 0 300
20 09:20:00.000 order 2 B 10.00 400
21 09:21:00.000 order 2 S 10.00 200
22 09:25:00.000 trade 10 12 10.00 600
23 09:25:00.000 trade 10 21 10.00 200
30 09:30:00.000 order 2 S 10.02 300
31 09:30:01.000 order 2 S 10.03 200
33 09:30:02.000 order 2 B 10.02 100
34 09:30:02.000 trade 33 30 10.02 100
36 09:30:03.000 order 1 B 0 500
37 09:30:03.000 trade 36 30 10.02 200
40 09:30:04.000 order U B 0 100
42 09:30:05.000 order 1 S 0 1200
43 09:30:05.000 trade 36 42 10.02 300
44 09:30:05.000 trade 40 42 10.02 100
45 09:30:05.000 trade 10 42 10.00 200
46 09:30:05.000 trade 20 42 10.00 400
47 09:30:05.000 cancel 0 42 200
50 09:30:06.000 order U B 0 100
51 09:30:06.000 cancel 50 0 100
52 09:30:06.500 order U S 0 150
55 09:30:07.000 order 1 B 10.20 600
56 09:30:07.000 trade 55 31 10.03 200
57 09:30:07.000 trade 55 52 10.03 150
58 09:30:07.000 trade 55 15 10.05 250
60 09:30:08.000 order 1 B 0 900
61 09:30:08.000 cancel 60 0 900
62 09:30:09.000 order 2 B 10.04 300
70 11:29:00.000 order 2 S 10.04 100
71 11:29:00.000 trade 62 70 10.04 100
80 13:00:00.000 cancel 62 0 200
82 14:00:00.000 order 2 B 10.05 250
83 14:00:00.000 trade 82 15 10.05 250
85 14:00:01.000 order 2 B 10.01 100
86 14:00:02.000 order 2 S 10.06 100
87 14:00:03.000 order 1 S 0 100
88 14:00:03.000 trade 85 87 10.01 100
89 14:00:04.000 order 2 B 10.00 400
90 14:57:01.000 order 2 S 10.00 150
91 14:58:00.000 order 2 B 10.03 150
95 15:00:00.000 trade 91 90 10.01 150
"""

OWN_NAMES = ("ChannelNo,ApplSeqNum,SecurityID,TransactTime,OrdType,Side,Price,OrderQty",
             "ChannelNo,ApplSeqNum,SecurityID,TransactTime,ExecType,BidApplSeqNum,OfferApplSeqNum,LastPx,LastQty")
LIKE_SHANGHAI = ("ChannelNo,ApplSeqNum,SecurityID,MDTime,OrderType,OrderBSFlag,OrderPrice,OrderQty",
                 "ChannelNo,ApplSeqNum,SecurityID,MDTime,TradeType,TradeBuyNo,TradeSellNo,TradePrice,TradeQty")


def write(folder, day=DAY, layout="own", name="000001_20230711", symbol="000001"):
    """The two files of a day; `layout`: own, codes (letters as numbers, times as one number) or shanghai."""
    heads = LIKE_SHANGHAI if layout == "shanghai" else OWN_NAMES
    rows = ([], [])
    words = {"own": "F4UBS", "codes": ["70", "52", "85", "49", "50"], "shanghai": "01312"}[layout]
    trade, cancel, own_best, buy, sell = words
    for line in day.strip().splitlines():
        sequence, time, what, *rest = line.split()
        if layout == "codes":
            time = "20230711" + time.replace(":", "").replace(".", "")
        start = f"2011,{sequence},{symbol},{time}"
        if what == "order":
            kind, side, price, volume = rest
            kind = {"U": own_best}.get(kind, str(int(kind) + 48) if layout == "codes" and kind in "12" else kind)
            rows[0].append(f"{start},{kind},{ {'B': buy, 'S': sell}.get(side, side)},{price},{volume}")
        elif what == "trade":
            rows[1].append(f"{start},{trade},{','.join(rest)}")
        else:
            rows[1].append(f"{start},{cancel},{rest[0]},{rest[1]},0,{rest[2]}")
    paths = []
    for head, lines, what in zip(heads, rows, ("orders", "trades"), strict=True):
        paths.append(folder / f"{name}_{what}.csv")
        paths[-1].write_text("\n".join([head, *lines]) + "\n")
    return paths
