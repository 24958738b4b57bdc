#!/usr/bin/env python3
"""Attacks one running node in every way of `cases.py`, and judges each by what the attacker saw, by what the
node counted, and by who noticed.

    attack.py PLAN.json [PART OF A CASE'S NAME]

The plan says where the node is; the test that starts the mesh writes it (`tests/tests/it/hostile.rs`). A line a
case is printed; the exit status is 0 if all went as `cases.py` says.
"""

import json
import os
import re
import sys
import time
import urllib.request
from pathlib import Path

import acts
import certificates
from cases import CASES
from speaker import Speaker
from wire import Hello

# A count that has not risen by then does not rise.
SOON = 15.0
# Processors that the node uses at most when nobody attacks it: what its customers cost, and a collection of metrics.
AT_REST = 0.6
# Nobody stands between this machine and itself.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Scene:
    """The node, what it has said of itself, and everyone who dials."""

    def __init__(self, plan):
        host, port = plan["node"].split(":")
        self.address, self.admin, self.pid = (host, int(port)), plan["admin"], plan["pid"]
        self.server_name = f"n1.us-east.{plan['domain']}"
        self.pool = plan["pool"]
        self.program, self.mesh = plan["program"], Path(plan["mesh"])
        self.authority = certificates.Authority(plan["domain"], (self.mesh / "ca/authority.pem").read_bytes())
        self.identities = certificates.all_of(self.mesh, self.authority)
        witness = Speaker(self, self.identities["app"]).connect()
        if not witness.greet(Hello().write()):
            raise SystemExit(f"the node lets nobody in: {witness.end()}")
        self.hello = Hello.read(witness.control())
        self.marks = {name: mark for name, _, mark in self.hello.manifest}
        (self.mesh.parent / "served.json").write_text(json.dumps(sorted(self.marks)))
        witness.leave()

    def get(self, path):
        with DIRECT.open(f"http://{self.admin}{path}", timeout=10) as answer:
            return answer.read().decode()

    def metrics(self) -> dict[str, float]:
        page = self.get("/metrics")
        lines = (line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
        return {series: float(value) for series, value in lines}

    def memory(self, which="VmRSS") -> int:
        """The node's resident memory in MiB: now, or (VmHWM) at its highest since `forget_peak`."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(rf"{which}:\s+(\d+) kB", status)[1]) >> 10

    def forget_peak(self):
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def worked(self) -> float:
        """Seconds of processor time that the node has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rose(scene, before, series) -> bool:
    """Whether series that this matches rise, at once or soon."""
    deadline = time.monotonic() + SOON
    of = lambda metrics: sum(value for name, value in metrics.items() if re.fullmatch(series, name))
    while of(scene.metrics()) <= of(before):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def at_rest(scene) -> bool:
    """Whether the node's processor time comes back to what its customers cost, at once or soon."""
    deadline = time.monotonic() + SOON
    while time.monotonic() < deadline:
        before, since = scene.worked(), time.monotonic()
        time.sleep(0.1)
        if scene.worked() - before < AT_REST * (time.monotonic() - since):
            return True
    return False


def undisturbed(scene, before) -> str | None:
    """What the neighbours noticed, if they did."""
    after = scene.metrics()
    peer = '{peer="eu-central/n1"}'
    for series in (f"rhumb_link_up{peer}", f"rhumb_link_connections_total{peer}"):
        if after.get(series) != before.get(series):
            return f"{series} was {before.get(series)} and is {after.get(series)}"
    speaker = acts.greeted(scene, "app")
    speaker.lane(acts.show(id=5)(scene))
    seen = acts.outcome(speaker, 5)
    return None if seen == "reply" else f"an honest call was answered by {seen}"


def run(scene, case) -> tuple[list[str], str]:
    before, resident = scene.metrics(), scene.memory()
    scene.forget_peak()
    seen = case.act(scene)
    wrong = []
    if not re.match(case.seen, seen):
        wrong.append(f"expected {case.seen!r}")
    if case.counted and not rose(scene, before, case.counted):
        wrong.append(f"{case.counted} did not rise")
    if noticed := undisturbed(scene, before):
        wrong.append(noticed)
    more = scene.memory("VmHWM") - resident
    if more > case.memory:
        wrong.append(f"{more} MiB more memory at its highest, at most {case.memory} were to be")
    if not at_rest(scene):
        wrong.append("the node goes on working after the attack")
    return wrong, f"{seen[:100]}  [{more:+} MiB]"


def main() -> int:
    plan = json.loads(Path(sys.argv[1]).read_text())
    wanted = sys.argv[2] if len(sys.argv) > 2 else ""
    scene = Scene(plan)
    failed, began, resident = 0, time.monotonic(), scene.memory()
    chosen = [case for case in CASES if wanted in case.name]
    for case in chosen:
        since = time.monotonic()
        try:
            wrong, seen = run(scene, case)
        except Exception as error:  # A case that fails must not hide the others.
            wrong, seen = [f"{type(error).__name__}: {error}"], ""
        failed += bool(wrong)
        print(f"{'FAILED' if wrong else 'ok':6} {time.monotonic() - since:5.1f} s  {case.name}: {seen}", flush=True)
        for why in wrong:
            print(f"       {why}", flush=True)
    took = time.monotonic() - began
    more = scene.memory() - resident
    print(f"the node has {scene.memory()} MiB, {more:+} since the first attack")
    failed += more > plan["memory_mib"]
    print(f"{len(chosen) - failed} of {len(chosen)} attacks ended as they should, in {took:.0f} s")
    return 1 if failed or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
