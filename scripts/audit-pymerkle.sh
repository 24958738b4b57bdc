#!/bin/sh
# Others' code verifies an exported audit log: pymerkle, from PyPI, hashes the entries and must come to the root in the
# checkpoint, and so it must to every full tile's hashes.
#
#   scripts/audit-pymerkle.sh PATH-OF-RHUMB                     a story of its own, from a sale to the proof
#   scripts/audit-pymerkle.sh PATH-OF-RHUMB EXPORT [ENTRY…]     an export that is there, and what these entries are
#
# An export of a pruned log is refused: pymerkle has no hashes but of entries (docs/audit.md says what verifies it).
#
# The story: a mesh of two nodes runs examples/audited_till.rs, which sells; the policy closes the border and a signed
# exception opens it, so that a sale fetches its units from the other side; a customer is erased. Then an outsider
# verifies the three: with pymerkle, and with the program `outsider` (the crates ct-merkle, tlog_tiles and ring).
#
# The first run makes a Python environment for it beside the program. What is started here is stopped here.
set -eu

rhumb=$(realpath "${1:?the path of the program rhumb}")
shift
version=7.0.0
home=${RHUMB_PYMERKLE:-$(dirname "$rhumb")/pymerkle}
mesh=""

steps_of=audit-pymerkle
running() { echo "$mesh"; }
. "$(dirname "$0")/lib-steps.sh"
goes_on() { [ -z "$mesh" ] || kill -0 "$mesh" 2>/dev/null; }
json() { python3 -c 'import json, sys; print(eval("answer" + sys.argv[1], {"answer": json.load(sys.stdin)}))' "$1"; }

[ -x "$rhumb" ] || fail "there is no program $rhumb: make build"
command -v python3 >/dev/null 2>&1 || fail "python3 is missing: apt-get install -y python3 python3-venv"
if [ "$(cat "$home/version" 2>/dev/null)" != "$version" ]; then
  rm -rf "$home/venv"
  mkdir -p "$home"
  python3 -m venv "$home/venv" || fail "no Python environment: apt-get install -y python3-venv"
  timeout 300 "$home/venv/bin/pip" install --quiet "pymerkle==$version" || fail "pymerkle $version was not installed"
  echo "$version" >"$home/version"
fi

cat >"$work/check.py" <<'END_OF_CHECK'
"""Reads a log in the layout of c2sp.org/tlog-tiles, and hashes its entries with pymerkle."""
import base64
import pathlib
import sys

from pymerkle import InmemoryTree

log, asked = pathlib.Path(sys.argv[1]), [int(number) for number in sys.argv[2:]]
origin, size, root = log.joinpath("checkpoint").read_text().split("\n")[:3]
size, root = int(size), base64.b64decode(root)
entries = []
for number in range(-(-size // 256)):
    width = min(256, size - number * 256)
    assert number < 1000, "this check knows paths of three digits"
    name = f"{number:03}" + (f".p/{width}" if width < 256 else "")
    bundle, at = log.joinpath("tile/entries", name).read_bytes(), 0
    for _ in range(width):
        length = int.from_bytes(bundle[at : at + 2], "big")
        entries.append(bundle[at + 2 : at + 2 + length])
        at += 2 + length
    assert at == len(bundle), name
tree = InmemoryTree(algorithm="sha256")
leaves = []
for entry in entries:
    leaves.append(tree.get_leaf(tree.append_entry(entry)))
assert tree.get_root() == root, f"{origin}: pymerkle has {tree.get_root().hex()}, the checkpoint {root.hex()}"
for number in range(size // 256):
    tile = log.joinpath("tile/0", f"{number:03}").read_bytes()
    assert tile == b"".join(leaves[number * 256 : number * 256 + 256]), f"tile/0/{number:03}"
entries[0] = entries[0][:-1] + bytes([entries[0][-1] ^ 1])
changed = InmemoryTree.init_from_entries(entries, algorithm="sha256")
assert changed.get_root() != root, "a flipped bit is not seen"
print(f"audit-pymerkle: {size} entries of {origin}: pymerkle comes to the same root, and to the same {size // 256} full tiles")
for index in asked:
    entry = entries[index]
    print(f"audit-pymerkle: entry {index} of them is {entry[15 : 15 + entry[14]].decode()}")
END_OF_CHECK
check() { "$home/venv/bin/python" "$work/check.py" "$@"; }

if [ $# -gt 0 ]; then
  # pymerkle makes a tree of all its entries, from the first one on.
  [ ! -e "$1/minimum-index" ] ||
    fail "$1 is of a log that was pruned of its first $(cat "$1/minimum-index") entries, and pymerkle hashes whole logs: use \`rhumb audit verify --export\` or \`outsider\`"
  check "$@"
  exit 0
fi

till=$(dirname "$rhumb")/audited-till
outsider=$(dirname "$rhumb")/outsider
export RHUMB_DATA="$work/mesh"
"$rhumb" dev --regions eu-central,us-east --wan off --program "$till" >"$work/dev.log" 2>&1 &
mesh=$!
until_well "the mesh is ready" test -s "$RHUMB_DATA/ready.json"
config=$RHUMB_DATA/config

# A policy under which all nodes serve: its version, and the rest of it after the jurisdictions.
serve_under() {
  sed -e '/^\[classes/,$d' -e "s/^version = .*/version = $1/" "$config/policy.toml" >"$work/policy"
  printf '%s\n' "$2" >>"$work/policy"
  cp "$work/policy" "$config/policy.toml"
  "$rhumb" policy sign --key "$config/operator.key" "$config/policy.toml" >"$work/step.log" 2>&1 || fail "not signed"
  for pid in $(json '["regions"]' <"$RHUMB_DATA/ready.json" | grep -o "'pid': [0-9]*" | grep -o '[0-9]*'); do
    kill -HUP "$pid"
  done
  until_well "all serve under policy $1" sh -c \
    "[ \$('$rhumb' audit query --action policy.change --records -o json | grep -c 'policy version $1') -ge 2 ]"
}
closed='[classes.inventory]
hold = ["eu-central"]
read = ["eu-central"]
carry = ["eu-central"]'
opened='
[[exceptions]]
class = "inventory"
from = "us-east"
to = "eu-central"
reason = "stock is brought home, approved by the data protection officer"
expires = 2096-07-31T00:00:00Z

[[exceptions]]
class = "inventory"
from = "eu-central"
to = "us-east"
reason = "the stock that is brought home is asked for and acknowledged"
expires = 2096-07-31T00:00:00Z'

until_well "the pool is there" "$rhumb" pool create tea --supply 1000
sale=$("$till" sell ada tea 3 | cut -d' ' -f2)
say "ada bought three: entry $sale"
serve_under 2 "$closed"
"$till" sell bob tea 700 >"$work/step.log" 2>&1 && fail "a closed border was crossed"
say "bob did not get 700, of which most lie beyond a border that is closed"
serve_under 3 "$closed$opened"
until_well "an exception opens the border" "$till" sell bob tea 700
crossed=$("$rhumb" audit query --action gate.exception -o json | json '["found"][0]["index"]')
say "an exception opened the border, and he got them: entry $crossed"
erased=$("$rhumb" audit erase-subject 'customer ada' -o json | json '["entry"]')
say "ada is erased: entry $erased"

# Enough entries for a full tile: reading records is one each.
count=0
while [ "$count" -lt 260 ]; do
  "$rhumb" audit tail --count 1 --records >"$work/tail.log" 2>&1 || fail "no entry was read"
  count=$((count + 1))
done
export_it() {
  rm -rf "$work/log"
  "$rhumb" audit export --out "$work/log" && [ -f "$work/log/tile/0/000" ]
}
until_well "an export with a full tile" export_it
"$rhumb" audit checkpoint -o json >"$work/view.json"
json '["policy"]' <"$work/view.json" >"$work/auditors.policy"
"$rhumb" audit verify --policy "$work/auditors.policy" --export "$work/log"
"$outsider" "$work/log" --key "$(json '["key"]' <"$work/view.json")" --entry "$sale" --entry "$crossed" --entry "$erased"
check "$work/log" "$sale" "$crossed" "$erased"
say "all is well"
