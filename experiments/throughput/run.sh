#!/bin/sh
# Measures what README.md has of a GPU, in about four minutes: sh experiments/throughput/run.sh FOLDER
# Three files of JSON lines in FOLDER: attention, head, rollout. One that fails does not end the others.
out=${1:?a folder for the results}
mkdir -p "$out"
export PYTHONPATH="$(cd "$(dirname "$0")/../.." && pwd)${PYTHONPATH:+:$PYTHONPATH}"
made=$(mktemp -d)
python experiments/throughput/attention.py --seconds 20 > "$out/attention.jsonl"
python experiments/throughput/head.py --what=speed,tiles --seconds=75 > "$out/head.jsonl"
# Cases are on disk one by one: what the end of a time-out takes is the one under way.
rollout="python -m marsjax.experiments.benchmark --config=configs/benchmark.py:rollout --config.repeats=1"
rollout="$rollout --config.parts=false"
timeout 120 $rollout --config.cases=2m:128,2m:4096,2m:16384 --config.chunks=3 --config.output="$made/small"
# Seven chunks hold one refresh.
timeout 60 $rollout --config.cases=24x1024:128 --config.chunks=7 --config.cache_dtype=int8 --config.output="$made/deep"
python - "$made" > "$out/rollout.jsonl" << 'END'
import json, pathlib, sys
for path in sorted(pathlib.Path(sys.argv[1]).glob("*/results.json")):
    found = json.loads(path.read_text())
    for row in found["rows"]:
        print(json.dumps({"device": found["device"], "jax": found["jax"], **row}))
END
