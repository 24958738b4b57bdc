#!/bin/sh
# Has an independent server check our traces: arize-phoenix from PyPI (a test tool only: Elastic License 2.0)
# takes what a small mesh and a command export, and is asked over its own REST API for the trace of one
# sale that fetched rights from another region. Everything it starts it stops. The first run downloads
# about 850 MB.
set -eu

target=${CARGO_TARGET_DIR:-target}
rhumb=${RHUMB_BIN:-$target/debug/rhumb}
rhumb=$(cd "$(dirname "$rhumb")" && pwd)/$(basename "$rhumb")
home=$target/phoenix
version=20.26.1
mkdir -p "$home"
home=$(cd "$home" && pwd)
[ -x "$home/venv/bin/phoenix" ] || {
  python3 -m venv "$home/venv"
  "$home/venv/bin/pip" install --quiet --only-binary :all: "arize-phoenix==$version"
}

work=$(mktemp -d)
phoenix=""
mesh=""
stop() {
  [ -z "$mesh" ] || { kill "$mesh" 2>/dev/null && wait "$mesh" 2>/dev/null; } || true
  [ -z "$phoenix" ] || { kill "$phoenix" 2>/dev/null && wait "$phoenix" 2>/dev/null; } || true
  rm -rf "$work"
}
trap stop EXIT
trap 'exit 130' INT TERM

ports=$(python3 -c '
import socket
held = [socket.socket() for _ in range(2)]
for one in held: one.bind(("127.0.0.1", 0))
print(*[one.getsockname()[1] for one in held])')
http=${ports% *}
grpc=${ports#* }

mkdir "$work/phoenix"
PHOENIX_HOST=127.0.0.1 PHOENIX_PORT=$http PHOENIX_GRPC_PORT=$grpc PHOENIX_WORKING_DIR=$work/phoenix \
  PHOENIX_TELEMETRY_ENABLED=false PHOENIX_ALLOW_EXTERNAL_RESOURCES=false PHOENIX_DISABLE_AGENT_ASSISTANT=true \
  "$home/venv/bin/phoenix" serve >"$work/phoenix.log" 2>&1 &
phoenix=$!

# A condition, asked again until it holds or time is over.
within() {
  seconds=$1
  what=$2
  shift 2
  until "$@" >"$work/last" 2>&1; do
    seconds=$((seconds - 1))
    [ "$seconds" -gt 0 ] || {
      echo "trace-phoenix: not in time: $what" >&2
      tail -5 "$work/last" "$work"/*.log >&2
      exit 1
    }
    sleep 1
  done
}

within 180 "phoenix answers" python3 -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:$http/healthz')"

export OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:$http/v1/traces"
export OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf
export RHUMB_DATA="$work/mesh"
"$rhumb" dev --regions us-east,eu-central --wan off >"$work/dev.log" 2>&1 &
mesh=$!
within 120 "the mesh is ready" test -f "$work/mesh/ready.json"
"$rhumb" pool create shoes --supply 400 --weights us-east=1,eu-central=0 >/dev/null
within 60 "eu-central knows the pool" "$rhumb" pool show shoes --region eu-central
"$rhumb" hold shoes --region eu-central -v >"$work/hold" 2>&1
trace=$(sed -n 's/^trace_id: //p' "$work/hold")
[ -n "$trace" ] || {
  echo "trace-phoenix: the hold said no trace:" >&2
  cat "$work/hold" >&2
  exit 1
}

cat >"$work/ask.py" <<'END'
"""Asks Phoenix for a trace and says whether it is that of a sale with rights from another region."""
import json
import sys
import urllib.request

port, trace = sys.argv[1:]
url = f"http://127.0.0.1:{port}/v1/projects/default/spans?trace_id={trace}&limit=1000"
spans = json.load(urllib.request.urlopen(url))["data"]
by_id = {span["context"]["span_id"]: span for span in spans}
roots = [span for span in spans if not span["parent_id"]]
assert len(roots) == 1, f"{len(roots)} spans without a parent of {len(spans)}"
orphans = [span["name"] for span in spans if span["parent_id"] and span["parent_id"] not in by_id]
assert not orphans, f"nobody knows the parents of {orphans}"
for key in ("region", "node", "data", "hybrid_time"):
    assert all(f"rhumb.{key}" in json.dumps(span["attributes"]) or key in span["attributes"].get("rhumb", {})
               for span in spans), f"rhumb.{key} is missing"


def leads(span, way):
    below = [one for one in spans if one["parent_id"] == span["context"]["span_id"] and one["name"] == way[0]]
    return any(len(way) == 1 or leads(one, way[1:]) for one in below)


asked = ["escrow/Hold", "escrow/Hold"]
needs = asked + ["send escrow.Level", "process escrow.Level"]
for way in (
    asked + ["queue"],
    asked + ["ingress gate"],
    asked + ["wait for rights"],
    asked + ["storage commit", "fsync"],
    needs + ["storage commit", "fsync"],
    needs + ["send escrow.Level", "process escrow.Level"],
):
    assert leads(roots[0], way), f"no {' > '.join(way)}"
print(f"trace-phoenix: {len(spans)} spans of trace {trace}, one root, every parent known, every way there")
END
within 60 "phoenix has the whole trace" python3 "$work/ask.py" "$http" "$trace"
cat "$work/last"
