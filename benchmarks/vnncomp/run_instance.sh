#!/bin/sh
# run_instance.sh v1 CATEGORY ONNX VNNLIB RESULTS TIMEOUT
# Writes into RESULTS: unsat, sat with the witness, unknown, timeout or error. `timeout` stands there from the beginning,
# so that it is what a killed run leaves. VERIFIER: the command, if not the one that install_tool.sh makes.
set -u
[ "${1:-}" = v1 ] || { echo "this is version v1 of the protocol, not '${1:-}'" >&2; exit 1; }
[ $# -eq 6 ] || { echo "run_instance.sh v1 CATEGORY ONNX VNNLIB RESULTS TIMEOUT" >&2; exit 1; }
model=$3 property=$4 results=$5 seconds=$6
verifier=${VERIFIER:-$(dirname "$0")/../../.venv/bin/verifier}
folder=$(mktemp -d)
child=
stop() {
    [ -z "$child" ] || kill "$child" 2>/dev/null
    wait
    exit 0
}
trap 'rm -rf "$folder"' EXIT
trap stop INT TERM HUP
echo timeout > "$results" || exit 1
# The verdict goes to a file beside it first: what is half-written is never read. VERIFIER may be several words.
# shellcheck disable=SC2086
timeout --kill-after=5 "$seconds" $verifier verify "$model" "$property" --time-limit "$seconds" \
    --results "$folder/results" --out "$folder/run" --json > /dev/null &
child=$!
wait "$child"
status=$?
if [ -s "$folder/results" ]; then
    cat "$folder/results" > "$results"
elif [ "$status" -ne 124 ] && [ "$status" -ne 137 ] && [ "$status" -ne 143 ]; then
    # Refused, with the reason on standard error.
    echo error > "$results"
fi
