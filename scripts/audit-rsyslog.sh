#!/bin/sh
# Debian's rsyslog receives a node's audit log: its own parser must find every entry once, over a restart of the server and
# one of the forwarder, with the leaf that the log's export comes to, and every record as it is.
#
#   scripts/audit-rsyslog.sh PATH-OF-RHUMB
#
# The server listens on loopback, in a directory of its own. What is started here is stopped here, by its pid.
set -eu

rhumb=$(realpath "${1:?the path of the program rhumb}")
mesh="" server="" forward=""

steps_of=audit-rsyslog
running() { echo "$forward $server $mesh"; }
. "$(dirname "$0")/lib-steps.sh"

[ -x "$rhumb" ] || fail "there is no program $rhumb: make build"
command -v python3 >/dev/null 2>&1 || fail "python3 is missing: apt-get install -y python3"
PATH=$PATH:/usr/sbin:/sbin
if ! command -v rsyslogd >/dev/null 2>&1; then
  command -v apt-get >/dev/null 2>&1 || fail "rsyslogd is missing: install rsyslog"
  [ "$(id -u)" = 0 ] || fail "rsyslogd is missing; type:  sudo apt-get install -y rsyslog"
  say "installing Debian's package rsyslog"
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq rsyslog >"$work/apt.log" 2>&1 || fail "not installed: try apt-get update"
fi

# What rsyslog makes of a message, by its parser of RFC 5424 and its own of structured data.
serve() {
  rm -f "$work/port"
  cat >"$work/rsyslog.conf" <<END_OF_CONF
global(workDirectory="$work" maxMessageSize="512k" parser.escapeControlCharactersOnReceive="on")
module(load="imtcp")
module(load="mmpstrucdata")
template(name="told" type="list") {
  constant(value="{\"facility\":\"")  property(name="syslogfacility-text")
  constant(value="\",\"severity\":\"") property(name="syslogseverity-text")
  constant(value="\",\"time\":\"")     property(name="timereported" dateFormat="rfc3339")
  constant(value="\",\"host\":\"")     property(name="hostname" format="json")
  constant(value="\",\"app\":\"")      property(name="app-name" format="json")
  constant(value="\",\"msgid\":\"")    property(name="msgid" format="json")
  constant(value="\",\"msg\":\"")      property(name="msg" format="json")
  constant(value="\",\"data\":")       property(name="\$!rfc5424-sd")
  constant(value="}\n")
}
ruleset(name="audit") {
  action(type="mmpstrucdata")
  action(type="omfile" file="$work/received.jsonl" template="told" asyncWriting="off" flushOnTXEnd="on")
}
input(type="imtcp" address="127.0.0.1" port="$1" listenPortFileName="$work/port" ruleset="audit")
END_OF_CONF
  rsyslogd -n -f "$work/rsyslog.conf" -i "$work/rsyslog.pid" >>"$work/rsyslog.log" 2>&1 &
  server=$!
}
# Every entry up to this one has come.
has() { python3 "$work/check.py" --upto "$1"; }
entries() { "$rhumb" audit checkpoint --node "$node" -o json | python3 -c 'import json, sys; print(json.load(sys.stdin)["entries"])'; }
next() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["next"])' "$work/siem.state"; }
is_at_rest() { [ "$(next)" = "$(entries)" ]; }

cat >"$work/check.py" <<'END_OF_CHECK'
"""Reads what rsyslog received; with --upto whether all before that are there, else compares it with an export."""
import base64
import hashlib
import json
import pathlib
import sys

work = pathlib.Path(sys.argv[0]).parent
came = {}
path = work / "received.jsonl"
for line in path.read_text().splitlines() if path.exists() else []:
    told = json.loads(line)
    data = told["data"]["rhumb@32473"]
    came.setdefault(int(data["index"]), []).append((told, data))
if sys.argv[1] == "--upto":
    sys.exit(0 if all(index in came for index in range(int(sys.argv[2]))) else 1)
upto = int(sys.argv[1])
export = [json.loads(line) for line in (work / "export.jsonl").read_text().splitlines()]
assert sorted(came) == list(range(upto)), f"of {upto} entries: {sorted(came)}"
opened = 0
for entry in export[:upto]:
    index = entry["index"]
    assert len(came[index]) == 1, f"entry {index} came {len(came[index])} times"
    (told, data), = came[index]
    leaf = hashlib.sha256(b"\0" + base64.b64decode(entry["entry"])).digest()
    assert data["leaf"] == base64.b64encode(leaf).decode(), f"the leaf of entry {index}"
    assert data["action"] == entry["action"] and told["msgid"] == entry["action"][:32], f"the action of entry {index}"
    assert told["facility"] == "audit" and told["app"] == "rhumb", f"entry {index}: {told}"
    if told["msg"].lstrip().startswith("{"):
        record = json.loads(told["msg"])
        assert record == entry["record"] and record["outcome"] == data["outcome"], f"the record of entry {index}"
        opened += 1
assert opened > 5, f"{opened} records"
erased = [told["msg"] for told, data in (one for ones in came.values() for one in ones) if "(erased)" in told["msg"]]
assert erased, "nothing of the erased subject came"
print(f"audit-rsyslog: rsyslog has {upto} entries, each once, with their leaves, {opened} of them with their records, {len(erased)} erased")
END_OF_CHECK

export RHUMB_DATA="$work/mesh"
"$rhumb" dev --regions eu-central,us-east --wan off >"$work/dev.log" 2>&1 &
mesh=$!
until_well "the mesh is ready" test -s "$RHUMB_DATA/ready.json"
node=eu-central/n1
"$rhumb" audit tail --records --node "$node" >"$work/step.log"
"$rhumb" audit erase-subject 'operator eu-central/dev' --node "$node" >"$work/step.log"

start_forward() {
  "$rhumb" audit forward --syslog "tcp://127.0.0.1:$port" --state "$work/siem.state" --records --node "$node" >>"$work/forward.log" 2>&1 &
  forward=$!
}
some_entries() {
  for name in "$@"; do "$rhumb" audit tail -n 1 --records --node "$node" >"$work/step.log" || fail "nothing is appended: $name"; done
}
serve 0
until_well "rsyslog listens" test -s "$work/port"
port=$(cat "$work/port")
start_forward
until_well "it has what was there" has "$(entries)"
until_well "nothing is on its way" is_at_rest
kill "$server"
wait "$server" || true
some_entries a b c
serve "$port"
until_well "after a restart it has what came meanwhile" has "$(entries)"
until_well "nothing is on its way" is_at_rest
kill "$forward"
wait "$forward" || fail "the forwarder did not end well"
some_entries d e f
start_forward
until_well "after a restart of the forwarder it has what came meanwhile" has "$(entries)"
until_well "nothing is on its way" is_at_rest
kill "$forward"
wait "$forward" || fail "the forwarder did not end well"
forward=""
upto=$(next)
published() { "$rhumb" audit checkpoint --node "$node" -o json | python3 -c 'import json, sys; sys.exit(json.load(sys.stdin)["published"] < int(sys.argv[1]))' "$upto"; }
until_well "all of it is published" published
"$rhumb" audit export --format json --records --out "$work/export.jsonl" --node "$node" >"$work/step.log"
python3 "$work/check.py" "$upto"
say "all is well"
