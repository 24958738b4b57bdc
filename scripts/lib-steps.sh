# shellcheck shell=sh
# What the scripts begin with that start programs and check them. They set $steps_of and say which pids are running(),
# the last one first, and read it: . "$(dirname "$0")/lib-steps.sh"
#
# Their folder is $work. It and their programs end with the script, whatever ends that; after a failure the ends of the logs
# are shown.

work=$(mktemp -d)

stop() {
  status=$?
  trap '' HUP INT TERM
  for pid in $(running); do kill "$pid" 2>/dev/null || true; done
  for pid in $(running); do wait "$pid" 2>/dev/null || true; done
  [ "$status" = 0 ] || tail -n 8 "$work"/*.log >&2 2>/dev/null || true
  rm -rf "$work"
  exit "$status"
}
trap stop EXIT
trap 'exit 130' HUP INT TERM

say() { echo "$steps_of: $*"; }
fail() {
  say "$*" >&2
  exit 1
}
# Whether there is any use in waiting; who knows better says so.
goes_on() { :; }
# Until it succeeds, for a minute.
until_well() {
  what=$1
  shift
  last=$(($(date +%s) + 60))
  until "$@" >"$work/step.log" 2>&1; do
    goes_on || fail "what was started has ended: $what"
    [ "$(date +%s)" -lt "$last" ] || fail "not within a minute: $what"
    sleep 0.3
  done
  say "$what"
}
