#!/bin/sh
# A real Prometheus scrapes a real mesh of three nodes: it must see all of them, their series and the
# exemplars of sampled calls, and its promtool must find nothing to mend on the classic page.
#
#   scripts/metrics-prometheus.sh PATH-OF-RHUMB
#
# Prometheus is Debian's package, unpacked into a folder of its own: nothing is installed, no service
# is started. What is started here is stopped here.
set -eu

rhumb=$(realpath "${1:?the path of the program rhumb}")
work=$(mktemp -d)
parts=${RHUMB_PROMETHEUS:-$(dirname "$rhumb")/prometheus}
pids=""

stop() {
  status=$?
  for pid in $pids; do kill "$pid" 2>/dev/null || true; done
  for pid in $pids; do wait "$pid" 2>/dev/null || true; done
  [ "$status" = 0 ] || tail -n 20 "$work"/*.log >&2 || true
  rm -rf "$work"
  exit "$status"
}
trap stop EXIT
trap 'exit 130' INT TERM

say() { echo "metrics-prometheus: $*"; }
fail() {
  say "$*" >&2
  exit 1
}

# eventually WHAT COMMAND…: tries for a minute.
eventually() {
  what=$1
  shift
  tries=0
  until "$@" >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ "$tries" -lt 120 ] || fail "not within a minute: $what"
    sleep 0.5
  done
  say "$what"
}

for part in curl jq; do
  command -v "$part" >/dev/null 2>&1 || fail "$part is missing: apt-get install -y $part"
done

# The two programs of the package, wherever they are.
if command -v prometheus >/dev/null 2>&1 && command -v promtool >/dev/null 2>&1; then
  prometheus=prometheus promtool=promtool
else
  prometheus=$parts/usr/bin/prometheus promtool=$parts/usr/bin/promtool
  if [ ! -x "$promtool" ]; then
    command -v apt-get >/dev/null 2>&1 || fail "prometheus and promtool are missing: install Prometheus"
    say "fetching Debian's package prometheus"
    (cd "$work" && apt-get download -q prometheus >apt.log 2>&1) || fail "apt-get download prometheus: try apt-get update"
    mkdir -p "$parts"
    dpkg-deb -x "$work"/prometheus_*.deb "$parts"
  fi
fi
say "$("$promtool" --version 2>&1 | head -n 1)"

# Three nodes, and a sale in each of them.
export RHUMB_DATA="$work/mesh"
"$rhumb" dev --wan off >"$work/dev.log" 2>&1 &
pids="$!"
eventually "three nodes are ready" test -s "$RHUMB_DATA/ready.json"
regions=$(jq -r '.regions[].region' "$RHUMB_DATA/ready.json")
admins=$(jq -r '.regions[].admin' "$RHUMB_DATA/ready.json" | sed 's#^http://##; s#/$##')
"$rhumb" pool create concert --supply 300 >/dev/null
for region in $regions; do
  for turn in 1 2 3; do
    # -v asks for a trace of the call.
    "$rhumb" hold concert --qty "$turn" --region "$region" -v >/dev/null 2>>"$work/holds.log"
  done
done

# The classic page is what promtool lets pass without a word.
for admin in $admins; do
  curl -sSf "http://$admin/metrics" >"$work/page.txt"
  said=$("$promtool" check metrics <"$work/page.txt" 2>&1) || fail "promtool check metrics: $said"
  [ -z "$said" ] || fail "promtool check metrics: $said"
done
say "promtool check metrics finds nothing to mend on $(wc -l <"$work/page.txt") lines"

# A port that nobody answers on.
port=19090
while curl -s -o /dev/null --max-time 1 "http://127.0.0.1:$port/"; do port=$((port + 1)); done
{
  printf 'global: { scrape_interval: 1s, scrape_timeout: 1s }\nscrape_configs:\n'
  printf '  - job_name: rhumb\n    static_configs:\n      - targets: [%s]\n' "$(echo "$admins" | paste -sd, -)"
} >"$work/prometheus.yml"
"$promtool" check config "$work/prometheus.yml" >"$work/config.log" 2>&1 || fail "promtool check config"
"$prometheus" --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/tsdb" \
  --web.listen-address="127.0.0.1:$port" --enable-feature=exemplar-storage >"$work/prometheus.log" 2>&1 &
pids="$pids $!"
api=http://127.0.0.1:$port/api/v1

# is QUERY VALUE: the one value that a query comes to.
is() {
  found=$(curl -sSf --get "$api/query" --data-urlencode "query=$1" | jq -r '.data.result[0].value[1]')
  [ "$found" = "$2" ]
}
has_exemplar() {
  curl -sSf --get "$api/query_exemplars" --data-urlencode 'query=rhumb_rpc_server_call_duration_seconds_bucket' \
    --data-urlencode "start=$(date -d '-10 minutes' +%s)" --data-urlencode "end=$(date -d '+1 minute' +%s)" |
    jq -e '[.data[] | select(.seriesLabels.method == "escrow.Hold") | .exemplars[].labels.trace_id] | any(length == 32)'
}
eventually "Prometheus scrapes all three (up)" is 'sum(up)' 3
eventually "every node is ready (rhumb_node_ready)" is 'sum(rhumb_node_ready)' 3
eventually "all links are up (rhumb_link_up)" is 'sum(rhumb_link_up)' 6
eventually "18 units are held (rhumb_pool_held)" is 'sum(rhumb_pool_held{pool="concert"})' 18
eventually "9 holds were served (rhumb_rpc_server_call_duration_seconds)" \
  is 'sum(rhumb_rpc_server_call_duration_seconds_count{method="escrow.Hold",outcome="ok"}) >= bool 9' 1
eventually "syncs have a 99th percentile (rhumb_store_sync_duration_seconds)" \
  is 'count(histogram_quantile(0.99, sum by (instance, le) (rhumb_store_sync_duration_seconds_bucket)) > 0)' 3
eventually "processes have memory (process_resident_memory_bytes)" is 'count(process_resident_memory_bytes > 1e6)' 3
eventually "a hold's trace is an exemplar" has_exemplar
say "all is well"
