#!/usr/bin/env bash
# Writes docker/requirements-DEVICE.txt: the packages of an environment that the tests have passed in, by their hashes.
#
#   pip freeze --exclude-editable > tested.txt      # in that environment
#   docker/lock.sh tested.txt                       # needs uv: pip install uv
set -euo pipefail
tested=$(realpath "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
for device in cpu cuda12 cuda13; do
    extras=(--extra demo --extra parquet --extra ray --extra serve)
    [ "$device" = cpu ] || extras+=(--extra "$device")
    printf 'setuptools\nwheel\n' | uv pip compile setup.py - "${extras[@]}" --constraint "$tested" \
        --python-version 3.11 --python-platform x86_64-manylinux_2_36 --generate-hashes --no-header --no-annotate \
        --quiet --output-file "docker/requirements-$device.txt"
done
