#!/usr/bin/env bash
# Makes .venv with the program and the extras named, and sees to the system libraries it needs.
# usage: ./setup.sh [EXTRA,...]   PYTHON names another Python 3.11
set -euo pipefail
cd "$(dirname "$0")"
python=${PYTHON:-python3.11}

say() { echo "setup: $*" >&2; }

# Debian and Ubuntu packages that are missing, installed where that needs no password, named where it does.
packages() {
    say "installing $*"
    if [ "$(id -u)" = 0 ]; then as_root=(); else as_root=(sudo -n); fi
    if ! command -v apt-get >/dev/null || ! { "${as_root[@]}" true && "${as_root[@]}" apt-get update -qq \
        && "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@"; } >&2
    then
        say "these system packages are missing, and could not be installed from here: $*"
        say "on Debian and Ubuntu: sudo apt-get install $*"
        exit 1
    fi
}

if [ ! -x .venv/bin/python ]; then
    if ! "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
        say "Python 3.11 is needed, and $python is not it: install it (Debian 12: apt-get install python3.11-venv;"
        say "elsewhere pyenv, uv or python.org), or name it: make PYTHON=/path/to/python3.11"
        exit 1
    fi
    "$python" -c 'import ensurepip, venv' 2>/dev/null || packages python3.11-venv
    "$python" -m venv .venv
fi

if [ "$(uname)" = Linux ]; then
    missing=()
    has() { .venv/bin/python -c "import ctypes; ctypes.CDLL('$1')" 2>/dev/null; }
    has libGL.so.1 || missing+=(libgl1)
    has libgthread-2.0.so.0 || missing+=(libglib2.0-0)
    if [[ ",${1:-}," == *,dev,* ]]; then command -v chromium chromium-browser google-chrome >/dev/null || missing+=(chromium); fi
    [ ${#missing[@]} = 0 ] || packages "${missing[@]}"
fi

# The build backend warns of every editable installation.
export PYTHONWARNINGS=ignore
say "installing Puppetcam${1:+ with $1} into .venv"
.venv/bin/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e ".${1:+[$1]}"
