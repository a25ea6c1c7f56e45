#!/bin/sh
# Makes the virtual environment in $1 with the extras in $2, and says something at least every other second.
set -eu
venv=$1
extras=$2
python=${PYTHON:-python3}

say() { printf '%s\n' "$*"; }

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    say "Python 3.11 or newer is needed; this is $("$python" --version). Set PYTHON=/path/to/python3.11 and try again."
    exit 1
}

# Runs a command with its output in a log; ticks while it works, shows the log when it fails.
quietly() {
    what=$1
    shift
    log=$(mktemp)
    say "$what"
    "$@" >"$log" 2>&1 &
    worker=$!
    seconds=0
    while kill -0 "$worker" 2>/dev/null; do
        sleep 1
        seconds=$((seconds + 1))
        if [ $((seconds % 2)) -eq 0 ]; then say "  ... $seconds s  $(tail -n 1 "$log" | cut -c 1-90)"; fi
    done
    if ! wait "$worker"; then
        cat "$log"
        rm -f "$log"
        say "This step failed: $*"
        exit 1
    fi
    rm -f "$log"
}

if [ ! -x "$venv/bin/python" ]; then
    quietly "Making the virtual environment in $venv" "$python" -m venv "$venv"
fi
quietly "Installing Delineate [$extras]" "$venv/bin/python" -m pip install --disable-pip-version-check --editable ".[$extras]"
say "Installed."
