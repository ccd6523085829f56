#!/bin/sh
# install_tool.sh v1
# Makes the environment that run_instance.sh runs, at the root of the repository. PYTHON: the interpreter, from 3.11 on.
set -eu
[ "${1:-}" = v1 ] || { echo "this is version v1 of the protocol, not '${1:-}'" >&2; exit 1; }
root=$(cd "$(dirname "$0")/../.." && pwd)
"${PYTHON:-python3}" -m venv "$root/.venv"
"$root/.venv/bin/pip" install "$root"
"$root/.venv/bin/verifier" --version
