#!/bin/sh
# What becomes of a service that is asked for twice what it can do: a node on one core, its customers on
# the other. Prints what was measured; ends with 5 where that is not within the bars.
set -eu
rhumb=$1 overload=$2
folder=$(mktemp -d)
on() { if [ "$(nproc)" -gt 1 ]; then core=$1; shift; taskset -c "$core" "$@"; else shift; "$@"; fi; }
# Not within on(): what is to be ended must be this shell's own child.
node="$rhumb"
[ "$(nproc)" -gt 1 ] && node="taskset -c 0 $rhumb"
$node dev --regions us-east --wan off --data "$folder/dev" --program "$overload" --ready-file "$folder/ready" \
    > "$folder/log" 2>&1 &
dev=$!
trap 'kill $dev 2>/dev/null || true; wait $dev 2>/dev/null || true; rm -rf "$folder"' EXIT
waited=0
until [ -f "$folder/ready" ]; do
    waited=$((waited + 1))
    if [ $waited -gt 600 ] || ! kill -0 $dev 2>/dev/null; then
        cat "$folder/log" >&2
        exit 1
    fi
    sleep 0.1
done
on 1 "$overload" measure "$folder/dev"
