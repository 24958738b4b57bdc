#!/bin/sh
# The reference implementation of age, as Debian packages it, opens an encrypted export of an audit log; what it gives is
# verified. Another key opens nothing, and nothing of the export lies on the disk as it is.
#
#   scripts/audit-age.sh PATH-OF-RHUMB
#
# age is unpacked into a folder of its own where it is missing: nothing is installed. What is started here is stopped here.
set -eu

rhumb=$(realpath "${1:?the path of the program rhumb}")
parts=${RHUMB_AGE:-$(dirname "$rhumb")/age}
mesh=""

steps_of=audit-age
running() { echo "$mesh"; }
. "$(dirname "$0")/lib-steps.sh"

[ -x "$rhumb" ] || fail "there is no program $rhumb: make build"
if command -v age >/dev/null 2>&1 && command -v age-keygen >/dev/null 2>&1; then
  age=age keygen=age-keygen
else
  age=$parts/usr/bin/age keygen=$parts/usr/bin/age-keygen
  if [ ! -x "$keygen" ]; then
    command -v apt-get >/dev/null 2>&1 || fail "age and age-keygen are missing: install age"
    say "fetching Debian's package age"
    (cd "$work" && apt-get download -q age >apt.log 2>&1) || fail "apt-get download age: try apt-get update"
    mkdir -p "$parts"
    dpkg-deb -x "$work"/age_*.deb "$parts"
  fi
fi

for who in auditor lawyer other; do "$keygen" -o "$work/$who.key" 2>"$work/step.log"; done
auditor=$("$keygen" -y "$work/auditor.key")
{
  echo "# who else may read it"
  "$keygen" -y "$work/lawyer.key"
} >"$work/recipients"

export RHUMB_DATA="$work/mesh"
"$rhumb" dev --regions eu-central,us-east --wan off >"$work/dev.log" 2>&1 &
mesh=$!
until_well "the mesh is ready" test -s "$RHUMB_DATA/ready.json"
# The first checkpoint may be of an empty log.
published() { "$rhumb" audit checkpoint -o json | python3 -c 'import json, sys; sys.exit(not json.load(sys.stdin)["published"])'; }
until_well "entries are published" published
mkdir "$work/out"
export_it() { "$rhumb" audit export --records --out "$work/out/log.tar.age" --encrypt "$auditor" --encrypt "$work/recipients"; }
until_well "an export" export_it
"$rhumb" audit export --records --format csv --out "$work/out/log.csv.age" --encrypt "$auditor" >"$work/step.log"
[ "$(ls -A "$work/out" | tr '\n' ' ')" = "log.csv.age log.tar.age " ] || fail "there is more than the exports: $(ls -A "$work/out")"
if grep -rq node.start "$work/out"; then fail "what is to be encrypted lies there as it is"; fi
if "$age" -d -i "$work/other.key" "$work/out/log.tar.age" >"$work/opened" 2>"$work/step.log"; then fail "another key opens it"; fi
for who in auditor lawyer; do
  mkdir "$work/$who"
  "$age" -d -i "$work/$who.key" "$work/out/log.tar.age" >"$work/$who.tar" || fail "$who cannot open it"
  tar -C "$work/$who" -xf "$work/$who.tar" 2>"$work/step.log" || fail "it is no archive"
  [ ! -s "$work/step.log" ] || fail "tar says: $(cat "$work/step.log")"
done
"$age" -d -i "$work/auditor.key" "$work/out/log.csv.age" >"$work/log.csv"
grep -q '^0,' "$work/log.csv" || fail "the table has no first entry"
"$rhumb" audit checkpoint -o json | python3 -c 'import json, sys; print(json.load(sys.stdin)["policy"], end="")' >"$work/auditors.policy"
"$rhumb" audit verify --policy "$work/auditors.policy" --export "$work/lawyer"
say "all is well"
