#!/usr/bin/env bash
# Builds a wheel, installs it into an empty environment, and runs the demonstration from there.
# Usage: try_wheel.sh PYTHON PYTHON_WITH_BUILD
set -euo pipefail
python=$1
builder=$(realpath -s "$2")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$builder" -m build --wheel --outdir "$work/dist" . >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check \
    --constraint constraints.txt "$work"/dist/*.whl
cd "$work" # away from the checkout, so that nothing is imported from it
MOLGRAFT_CACHE="$work/cache" "$work/venv/bin/molgraft" demo --quiet --runs "$work/runs" >"$work/demo.txt"
grep -q "Was the graph used? Yes" "$work/demo.txt" || { cat "$work/demo.txt"; exit 1; }
echo "the wheel installs into an empty environment and runs the demonstration"
