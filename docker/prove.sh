#!/usr/bin/env bash
# Builds the image of the Dockerfile and runs it, without a registry: its base is made from Debian's packages.
#
#   docker/prove.sh [cpu|cuda12|cuda13] [options of `buildah bud`, as --volume=...]
#
# Needs root, debootstrap and buildah (both packages of Debian), 4 GB of disk (12 for CUDA), and no container engine
# that runs. Leaves nothing behind. What it runs: `marsjax doctor` and a small forecast, as the image's own user.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
device=${1:-cpu}
work=$(mktemp -d)
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot STORAGE_CONF=$work/storage.conf
printf '[storage]\ndriver = "vfs"\ngraphroot = "%s"\nrunroot = "%s"\n' "$work/images" "$work/run" >"$STORAGE_CONF"
trap 'rm -rf "$work"' EXIT

echo "== base"
debootstrap --variant=minbase bookworm "$work/root" >"$work/debootstrap.log" || { tail "$work/debootstrap.log"; exit 1; }
base=$(buildah from scratch)
buildah add --quiet "$base" "$work/root" / >/dev/null
buildah commit --quiet "$base" docker.io/library/debian:bookworm-slim >/dev/null
buildah rm "$base" >/dev/null
rm -rf "$work/root"

echo "== build for $device"
buildah bud --pull-never --build-arg "DEVICE=$device" --tag marsjax "${@:2}" .

echo "== run"
container=$(buildah from --pull-never marsjax)
in_it() { buildah run "$container" -- "$@"; }
[ "$(in_it id -un)" = marsjax ] || { echo "runs as $(in_it id -un), expected marsjax"; exit 1; }
in_it marsjax doctor
in_it marsjax forecast --config=forecast:default,trajectories=8,minutes=1,output=runs/proof
in_it test -s runs/proof/fan.png
echo "== done"
