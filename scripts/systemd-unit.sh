#!/bin/sh
# A real systemd runs contrib/systemd/rhumb@.service as it stands: start, readiness, reload, a killed and a
# stopped process, faulty settings, stop.
#
#   scripts/systemd-unit.sh PATH-OF-RHUMB
#
# It needs root and systemd 252 or later. systemd is PID 1 of namespaces of its own, with no units but the
# one and empty targets; /etc, /run, /var/lib/rhumb and /usr/local/bin are copies in memory there. Nothing is
# installed, and all of it ends with this script.
set -eu

unit='rhumb@eu-central:n1'
say() { echo "systemd-unit: $*"; }
fail() {
  say "$*" >&2
  exit 1
}

# ---- inside, before systemd: the machine as an operator would have prepared it --------------------------
if [ "${1:-}" = boot ]; then
  work=$2
  mount --make-rprivate /
  mount -t tmpfs tmpfs /run
  mkdir -p /run/systemd "$work/etc" /var/lib/rhumb
  mount -t tmpfs tmpfs "$work/etc"
  cp -a /etc/. "$work/etc/"
  mount --bind "$work/etc" /etc
  rm -f /etc/fstab
  id rhumb >/dev/null 2>&1 || useradd --system --home-dir /var/lib/rhumb --shell /usr/sbin/nologin rhumb
  mount -t tmpfs -o mode=755 tmpfs /var/lib/rhumb
  mount -t tmpfs -o mode=755 tmpfs /usr/local/bin
  install -m 755 "$work/rhumb" /usr/local/bin/rhumb
  rm -rf /etc/rhumb
  cp -a "$work/mesh/config" /etc/rhumb
  cp -a "$work/mesh/nodes" /var/lib/rhumb/
  chown -R rhumb:rhumb /var/lib/rhumb
  sed -i 's#"\.\./nodes/#"/var/lib/rhumb/nodes/#' /etc/rhumb/eu-central.toml
  if [ ! -f /sys/fs/cgroup/cgroup.controllers ]; then
    umount -l /sys/fs/cgroup
    mount -t tmpfs tmpfs /sys/fs/cgroup
    mkdir /sys/fs/cgroup/systemd
    mount -t cgroup -o none,name=systemd,xattr cgroup /sys/fs/cgroup/systemd
  fi
  export container=rhumb-test SYSTEMD_UNIT_PATH="$work/units"
  exec /lib/systemd/systemd --system --log-target=null --unit=boot.target --show-status=no
fi

# ---- inside, under systemd --------------------------------------------------------------------------------
property() { systemctl show "$unit" -p "$1" --value; }
# until WHAT PROPERTY VALUE: waits for two minutes.
until_is() {
  tries=0
  until [ "$(property "$2")" = "$3" ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 240 ] || fail "not within two minutes: $1 ($2 is $(property "$2"), not $3)"
    sleep 0.5
  done
  say "$1"
}
if [ "${1:-}" = try ]; then
  data=/var/lib/rhumb/nodes/eu-central-n1/data
  systemctl start "$unit" || fail "it did not start: $(systemctl status "$unit" --no-pager || true)"
  until_is "it serves, and says so" StatusText serving
  grep -q '^CapEff:[[:space:]]*0*$' "/proc/$(property MainPID)/status" || fail "it has capabilities"
  grep -q '^Seccomp:[[:space:]]*2$' "/proc/$(property MainPID)/status" || fail "no system calls are filtered"
  printf '\n[escrow]\nmax_keys = 77\n' >>/etc/rhumb/eu-central.toml
  systemctl reload "$unit"
  until_is "it serves after a reload" StatusText serving
  kill -9 "$(property MainPID)"
  until_is "it was started again after SIGKILL" NRestarts 1
  until_is "and serves" StatusText serving
  kill -STOP "$(property MainPID)"
  until_is "the watchdog ended it when it stood still" NRestarts 2
  until_is "and it serves" StatusText serving
  systemctl stop "$unit"
  until_is "it stopped" ActiveState inactive
  grep -q '"stopped"' "$data/last-stop.json" || fail "$(cat "$data/last-stop.json")"
  printf 'max_kesy = 1\n' >>/etc/rhumb/eu-central.toml
  ! systemctl start "$unit" 2>/dev/null || fail "it started with faulty settings"
  until_is "faulty settings end it with code 2" ExecMainStatus 2
  until_is "and it is not started again" ActiveState failed
  exit 0
fi

# ---- outside ------------------------------------------------------------------------------------------------
rhumb=$(realpath "${1:?the path of the program rhumb}")
[ "$(id -u)" = 0 ] && [ -x /lib/systemd/systemd ] || fail "it needs root and systemd"
here=$(realpath "$0")
repository=$(dirname "$(dirname "$here")")
work=$(mktemp -d /tmp/rhumb-systemd.XXXXXX)
outer=""
stop() {
  status=$?
  if [ -n "$outer" ]; then
    # The namespace's first process: with it all others go.
    for pid in $(pgrep -P "$outer"); do kill -9 "$pid" 2>/dev/null || true; done
    wait "$outer" 2>/dev/null || true
  fi
  rm -rf "$work"
  exit "$status"
}
trap stop EXIT
trap 'exit 130' INT TERM

mkdir "$work/units"
for target in sysinit basic shutdown umount final multi-user network-online time-sync boot; do
  printf '[Unit]\nDescription=%s\nDefaultDependencies=no\n' "$target" >"$work/units/$target.target"
done
cp "$repository/contrib/systemd/rhumb@.service" "$work/units/"
cp "$rhumb" "$work/rhumb"
port=${RHUMB_PORT:-17841}
(cd "$work" && ./rhumb mesh init --nodes "eu-central/n1=127.0.0.1:$port" mesh >/dev/null)

unshare --mount --pid --fork --cgroup --mount-proc sh "$here" boot "$work" >"$work/boot.log" 2>&1 &
outer=$!
inside() { nsenter -t "$(pgrep -P "$outer")" -m -p -C "$@"; }
tries=0
until inside systemctl is-system-running 2>/dev/null | grep -qE 'running|degraded'; do
  tries=$((tries + 1))
  [ "$tries" -lt 60 ] || fail "systemd did not start: $(cat "$work/boot.log")"
  sleep 0.5
done
say "$(systemctl --version | head -n 1) is PID 1 of a namespace"
inside sh "$here" try
say "all well"
