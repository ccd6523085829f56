#!/bin/sh
# prepare_instance.sh v1 CATEGORY ONNX VNNLIB
# Status 0 where both files are there, packed or not. There is nothing else to prepare: run_instance.sh leaves no process.
set -u
[ "${1:-}" = v1 ] || { echo "this is version v1 of the protocol, not '${1:-}'" >&2; exit 1; }
[ $# -eq 4 ] || { echo "prepare_instance.sh v1 CATEGORY ONNX VNNLIB" >&2; exit 1; }
for file in "$3" "$4"; do
    [ -r "$file" ] || [ -r "$file.gz" ] || { echo "$file cannot be read" >&2; exit 1; }
done
