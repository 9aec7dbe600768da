"""Who trades: pure functions from what an agent sees and a key to what it sends."""
