"""What share of its steps' time a training on shards waited for windows, by the rows of its metrics.

    python experiments/token_shards/waiting.py runs/mine/metrics.jsonl

Without the first row, in which the program is compiled.
"""

import json
import sys
from pathlib import Path

if __name__ == "__main__":
    rows = [json.loads(line) for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()][1:]
    waited, steps = (sum(row[key] for row in rows if key in row) for key in ("waited_s", "steps_s"))
    print(f"{waited:.3f} of {steps:.3f} s: {waited / steps:.3%}")
