#!/bin/sh
# Makes or completes the virtual environment that make and .ci/run use; knows nothing of what runs in it.
# usage: setup_venv.sh VENV [WHEEL]     without WHEEL the checkout itself is installed, editable
# Plain `pip install` only: Debian 12's pip 23 knows no dependency groups.
set -eu

venv=$1
wheel=${2:-}
here=$(cd "$(dirname "$0")/.." && pwd)
say() { printf '%s\n' "$*" >&2; }

suits() { command -v "$1" >/dev/null 2>&1 && "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

choose() {
    if [ -n "${PYTHON:-}" ]; then
        suits "$PYTHON" && { printf '%s' "$PYTHON"; return; }
        say "PYTHON=$PYTHON is not Python 3.11 or newer"
        exit 1
    fi
    for name in python3 python3.14 python3.13 python3.12 python3.11; do
        suits "$name" && { printf '%s' "$name"; return; }
    done
    say "inbounds needs Python 3.11 or newer, found $(python3 --version 2>/dev/null || echo none); type: sudo apt-get install python3 python3-venv   (or make PYTHON=/path/to/python3.12 ...)"
    exit 1
}

python=$(choose)
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    say "this Python $version cannot make virtual environments; type: sudo apt-get install python$version-venv"
    exit 1
fi
# An environment that was left half-made, or whose interpreter has gone, is made anew.
if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    say "making $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv"
fi

log=$venv/setup.log
if [ -n "$wheel" ]; then
    # The tested thing is the wheel: put exactly this file there, whatever was there before.
    set -- --force-reinstall --no-deps "$wheel"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$wheel[dev]" >"$log" 2>&1 &&
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@" >>"$log" 2>&1
else
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e "$here[dev]" >"$log" 2>&1
fi || {
    cat "$log" >&2
    say "the packages could not be installed (above: what pip said); check the network, then type the same command again"
    exit 1
}
touch "$venv/.inbounds-ready"
