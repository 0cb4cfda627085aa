#!/bin/sh
# Finds a Python 3.11 and hands over to scripts/bootstrap.py. Usage: setup.sh [PYTHON]
# Kept to POSIX sh, because it must give a clear answer on a machine where no Python starts at all.
set -eu
cd "$(dirname "$0")/.."

is_311() {
    "$1" -c 'import sys; sys.exit(0 if sys.version_info[:2] == (3, 11) else 1)' >/dev/null 2>&1
}

wanted=${1:-}
if [ -n "$wanted" ]; then
    is_311 "$wanted" && exec "$wanted" -m scripts.bootstrap
    if version=$("$wanted" --version 2>/dev/null); then found="is $(echo "$version" | head -n 1)"; else found="does not start"; fi
    {
        echo "PySyTFF needs Python 3.11: PYTHON=$wanted $found."
        echo "Give the path of a Python 3.11, for example: make setup PYTHON=/usr/bin/python3.11"
    } >&2
    exit 1
fi

for candidate in python3.11 python3 python; do
    if is_311 "$candidate"; then exec "$candidate" -m scripts.bootstrap; fi
done
{
    echo "PySyTFF needs Python 3.11, and none starts here (python3.11, python3 and python were tried)."
    command -v python3 >/dev/null 2>&1 && echo "python3 here is: $(python3 --version 2>&1 | head -n 1)"
    echo "TensorFlow Federated 0.87 has wheels for no other version that this project can use (docs/adr/0006-pins.md)."
    echo "Install one (Debian, Ubuntu: python3.11 and python3.11-venv; or pyenv, conda, python.org), then:"
    echo "    make setup PYTHON=/path/to/python3.11"
} >&2
exit 1
