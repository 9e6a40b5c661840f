#!/bin/sh
# Renews uv.lock from pyproject.toml against pypi.org alone; a mirror of this host must not get into the file.
set -eu
cd "$(dirname "$0")/.."
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT INT TERM
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check uv
for name in $(env | sed -n 's/^\(UV_[A-Z_]*\|PIP_[A-Z_]*\)=.*/\1/p'); do unset "$name"; done
"$place/venv/bin/uv" --no-config --no-cache lock --default-index https://pypi.org/simple "$@"
if grep -nE 'file://|registry = "' uv.lock | grep -vE 'registry = "https://pypi.org/simple"'; then
    echo "uv.lock names a source that is not pypi.org" >&2
    exit 1
fi
