#!/bin/sh
# An independent server takes what a mesh of two nodes and a command export, the nodes over gRPC, the
# command over HTTP, and is asked over its own REST API for the trace of a hold whose rights came from
# another region: it must know that trace whole, with every parent.
#
#   scripts/trace-phoenix.sh PATH-OF-RHUMB
#
# The server is arize-phoenix from PyPI, in a Python environment of its own, which the first run makes
# (about 850 MB, Python 3.11 to 3.14). Its licence, Elastic 2.0, lets it be a tool of tests; no part of it
# is ours to pass on. What is started here is stopped here.
set -eu

rhumb=$(realpath "${1:?the path of the program rhumb}")
version=20.26.1
home=${RHUMB_PHOENIX:-$(dirname "$rhumb")/phoenix}
work=$(mktemp -d)
mesh=""
phoenix=""

# end PID: asked to stop, it has 20 seconds, so that nothing can hold this up.
end() {
  [ -n "$1" ] || return 0
  kill "$1" 2>/dev/null || true
  tries=0
  while kill -0 "$1" 2>/dev/null && [ "$tries" -lt 40 ]; do
    tries=$((tries + 1))
    sleep 0.5
  done
  kill -9 "$1" 2>/dev/null || true
  wait "$1" 2>/dev/null || true
}
stop() {
  status=$?
  trap '' HUP INT TERM
  # The mesh goes first: its nodes export what they have left to a server that still takes it.
  end "$mesh"
  end "$phoenix"
  [ "$status" = 0 ] || tail -n 5 "$work"/*.log >&2 2>/dev/null || true
  rm -rf "$work"
  exit "$status"
}
trap stop EXIT
trap 'exit 130' HUP INT TERM

say() { echo "trace-phoenix: $*"; }
fail() {
  say "$*" >&2
  exit 1
}

# bounded SECONDS COMMAND…: in the foreground, so that Ctrl-C reaches the command too.
bounded() { timeout --foreground --kill-after=5 "$@"; }

# eventually SECONDS WHAT COMMAND…: tries for so long; where that is in vain, it tells what the last try said.
eventually() {
  last=$(($(date +%s) + $1))
  what=$2
  shift 2
  until bounded 20 "$@" >"$work/try" 2>&1; do
    for pid in $phoenix $mesh; do
      kill -0 "$pid" 2>/dev/null || fail "what was started has ended; so there is never: $what"
    done
    [ "$(date +%s)" -lt "$last" ] || {
      cat "$work/try" >&2
      fail "not in time: $what"
    }
    sleep 0.5
  done
  say "$what"
}

[ -x "$rhumb" ] || fail "there is no program $rhumb: make build"
command -v python3 >/dev/null 2>&1 || fail "python3 is missing: apt-get install -y python3 python3-venv"

# The note is written last: an installation that was broken off is made anew.
if [ "$(cat "$home/version" 2>/dev/null)" != "$version" ]; then
  say "installing arize-phoenix $version, about 850 MB"
  rm -rf "$home/venv"
  mkdir -p "$home"
  python3 -m venv "$home/venv" || fail "no Python environment: apt-get install -y python3-venv"
  bounded 1200 "$home/venv/bin/pip" install --quiet --only-binary :all: "arize-phoenix==$version" ||
    fail "arize-phoenix $version was not installed within 20 minutes"
  echo "$version" >"$home/version"
fi

# Nobody stands between this machine and itself.
export NO_PROXY=127.0.0.1 no_proxy=127.0.0.1

ports=$(python3 -c '
import socket
held = [socket.socket() for _ in range(2)]
for one in held: one.bind(("127.0.0.1", 0))
print(*[one.getsockname()[1] for one in held])')
http=http://127.0.0.1:${ports% *}
grpc=http://127.0.0.1:${ports#* }

# An environment of its own: a developer's PHOENIX_SQL_DATABASE_URL, say, must not make this write there.
# The host is that of HTTP; its gRPC listens on all addresses and cannot be told otherwise.
mkdir "$work/phoenix"
env -i PATH="$PATH" HOME="$work/phoenix" PHOENIX_WORKING_DIR="$work/phoenix" \
  PHOENIX_HOST=127.0.0.1 PHOENIX_PORT="${ports% *}" PHOENIX_GRPC_PORT="${ports#* }" \
  PHOENIX_TELEMETRY_ENABLED=false PHOENIX_ALLOW_EXTERNAL_RESOURCES=false PHOENIX_DISABLE_AGENT_ASSISTANT=true \
  "$home/venv/bin/phoenix" serve >"$work/phoenix.log" 2>&1 &
phoenix=$!
eventually 180 "Phoenix answers" python3 -c '
import sys, urllib.request
urllib.request.urlopen(sys.argv[1] + "/healthz", timeout=5)' "$http"

# Two nodes, all rights in one of them, and a hold in the other.
export RHUMB_DATA="$work/mesh"
OTEL_EXPORTER_OTLP_PROTOCOL=grpc "$rhumb" dev --regions us-east,eu-central --wan off --otlp "$grpc" \
  >"$work/dev.log" 2>&1 &
mesh=$!
eventually 60 "two nodes are ready" test -s "$RHUMB_DATA/ready.json"
bounded 30 "$rhumb" pool create shoes --supply 400 --weights us-east=1,eu-central=0 >"$work/pool.log" 2>&1 ||
  fail "the pool was not made"
eventually 60 "eu-central knows the pool" "$rhumb" pool show shoes --region eu-central
OTEL_EXPORTER_OTLP_ENDPOINT=$http OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf \
  bounded 30 "$rhumb" hold shoes --region eu-central -v >"$work/hold.log" 2>&1 || fail "nothing was held"
trace=$(sed -n 's/^trace_id: //p' "$work/hold.log")
[ -n "$trace" ] || fail "the hold did not say its trace"

cat >"$work/ask.py" <<'END'
"""Asks Phoenix for a trace: is it whole, and is it that of a hold with rights from another region?"""
import json
import sys
import urllib.request

http, trace = sys.argv[1:]
url = f"{http}/v1/projects/default/spans?trace_id={trace}&limit=1000"
page = json.load(urllib.request.urlopen(url, timeout=10))
spans = page["data"]
assert not page["next_cursor"], "more spans than a page holds"


def said(span, key):
    return span["attributes"].get(key) or ""


def below(parent):
    return sorted((span for span in spans if span["parent_id"] == parent), key=lambda span: span["start_time"])


def tree(parent, depth):
    for span in below(parent):
        print(f"{'  ' * depth}{span['name']} ({said(span, 'rhumb.node')})")
        tree(span["context"]["span_id"], depth + 1)


def leads(parent, way):
    (name, node), rest = way[0], way[1:]
    found = [one for one in below(parent) if one["name"] == name and said(one, "rhumb.node").startswith(node)]
    return any(not rest or leads(one["context"]["span_id"], rest) for one in found)


# Before all else, for whoever must find out what was wrong with it.
tree(None, 0)
sys.stdout.flush()
known = {span["context"]["span_id"] for span in spans}
assert len(known) == len(spans), "a span is there twice"
assert all(span["context"]["trace_id"] == trace for span in spans), "spans of another trace"
roots = [span["name"] for span in spans if not span["parent_id"]]
assert roots == ["rhumb"], f"of {len(spans)} spans without a parent: {roots}"
orphans = [span["name"] for span in spans if span["parent_id"] and span["parent_id"] not in known]
assert not orphans, f"nobody knows the parents of {orphans}"
for span in spans:
    for key in ("rhumb.region", "rhumb.node", "rhumb.data.class", "rhumb.hybrid_time"):
        assert said(span, key), f"{key} is missing: {span}"
assert "shoes" not in json.dumps(spans), "the name of a pool is in the trace"

# Phoenix forgets the kinds of spans: who asks and who answers are told apart by their nodes.
customer, here, there = "eu-central/client/", "eu-central/n1", "us-east/n1"
held = [("rhumb", customer), ("escrow/Hold", customer), ("escrow/Hold", here)]
wants = held + [("send escrow.Level", here), ("process escrow.Level", there)]
given = wants + [("send escrow.Level", there), ("process escrow.Level", here)]
for way in (
    held[:2] + [("encode", customer)],
    *(held + [(part, here)] for part in ("ingress gate", "decode", "queue", "handler", "wait for rights")),
    held + [("storage commit", here), ("fsync", here)],
    *(held + [(part, here)] for part in ("encode", "egress gate")),
    held + [("send escrow.Level", here), ("egress gate", here)],
    wants + [("queue", there)],
    wants + [("storage commit", there), ("fsync", there)],
    given + [("queue", here)],
):
    assert leads(None, way), f"there is no {' > '.join(f'{name} ({node})' for name, node in way)}"

print(f"trace-phoenix: {len(spans)} spans of trace {trace}, one root, every parent known")
END
eventually 60 "Phoenix has the whole trace" python3 "$work/ask.py" "$http" "$trace"
cat "$work/try"
say "all is well"
