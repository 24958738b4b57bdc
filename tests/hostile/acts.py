"""What attackers do. Each act takes the scene and tells what the attacker saw, in words that a case expects."""

import os
import random
import signal
import socket
import struct
import subprocess
import time
from datetime import datetime, timedelta, timezone

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.tls import CipherSuite, SessionTicket

import wire
from speaker import MOMENT, PATIENCE, Speaker
from wire import CALLER, TARGET, Hello, entry, frame, gathered, message, number, text


# ---- who ---------------------------------------------------------------------------------------------


def hello_of(scene, who: str) -> Hello:
    """The HELLO that fits a certificate: a node names itself, its mesh and its founding list."""
    if who in ("node", "itself"):
        region = "ap-southeast" if who == "node" else "us-east"
        return Hello(node=(region, "n1"), cluster=scene.hello.cluster, founding=scene.hello.founding)
    return Hello()


def greeted(scene, who: str, versions=None, streams=None) -> Speaker:
    """A connection on which one may speak, and the node open so many streams."""
    speaker = Speaker(scene, scene.identities[who])
    if streams is not None:
        speaker.quic._local_max_streams_uni.value = streams
    speaker.connect()
    said = hello_of(scene, who)
    said.versions = versions or said.versions
    if not speaker.greet(said.write()):
        raise AssertionError(f"{who} was not let in: {speaker.end()}")
    # The node permits lanes after its HELLO.
    speaker.until(lambda: speaker.quic._remote_max_streams_uni > 0)
    return speaker


def outcome(speaker: Speaker, call: int | None = 1, within=PATIENCE) -> str:
    """What comes first: the end, or an answer to a call."""
    answered = lambda: call is not None and speaker.answer(call) is not None
    speaker.until(lambda: speaker.closed or answered(), within)
    seen = speaker.answer(call) if answered() else speaker.end()
    speaker.leave()
    return seen


# ---- handshakes --------------------------------------------------------------------------------------


def dial(who: str, alpn="rhumb/1"):
    """Dials, and says a HELLO that fits."""

    def act(scene):
        speaker = Speaker(scene, scene.identities[who], alpn=alpn).connect()
        said = speaker.greet(hello_of(scene, who).write())
        seen = "let in" if said else speaker.end()
        speaker.leave()
        return seen

    return act


def early(who: str):
    """Sends a HELLO as 0-RTT data under a session ticket that it has made up."""

    def act(scene):
        now, day = datetime.now(timezone.utc), timedelta(days=1)
        ticket = SessionTicket(
            age_add=7, cipher_suite=CipherSuite.AES_128_GCM_SHA256, not_valid_before=now - day, not_valid_after=now + day,
            resumption_secret=os.urandom(32), server_name=scene.server_name, ticket=os.urandom(64),
            max_early_data_size=0xFFFFFFFF, other_extensions=[(0x39, _parameters())],
        )
        speaker = Speaker(scene, scene.identities[who], ticket=ticket).connect()
        # A second message, which is none, makes it more than the first datagram holds.
        speaker.quic.send_stream_data(0, message(hello_of(scene, who).write()) + message(bytes([200]) * 5000))
        speaker.until(lambda: speaker.closed or speaker.control())
        said = speaker.control() is not None
        taken = speaker.completed and (speaker.completed.early_data_accepted or speaker.completed.session_resumed)
        seen = "let in" if said else speaker.end()
        speaker.leave()
        return ("early data taken, " if taken else "") + (f"{len(speaker.tickets)} tickets, " if speaker.tickets else "") + seen

    return act


def _parameters() -> bytes:
    """Transport parameters that a ticket remembers: streams and room enough for early data."""
    out = b""
    for id, value in ((4, 1 << 20), (5, 1 << 20), (6, 1 << 20), (7, 1 << 20), (8, 8), (9, 8)):
        coded = struct.pack(">I", 0x80000000 | value)
        out += bytes([id, len(coded)]) + coded
    return out


def outlives(seconds: float):
    """A connection whose certificate ends while it is open."""

    def act(scene):
        scene.identities["dying"] = scene.authority.issue("client", "us-east", "dying", ends=seconds / 86_400)
        return outcome(greeted(scene, "dying"), None)

    return act


def revoked_alive(who: str):
    """A connection whose certificate is revoked while it is open."""

    def act(scene):
        speaker = greeted(scene, who)
        revoke = [scene.program, "cert", "revoke", scene.mesh / f"clients/us-east-{who}", "--mesh", scene.mesh]
        subprocess.run(revoke, check=True, capture_output=True)
        os.kill(scene.pid, signal.SIGHUP)
        return outcome(speaker, None)

    return act


def dripping(count: int, sources=("127.0.0.2",)):
    """So many handshakes at once, a packet a second each, and somebody honest who dials meanwhile, from an address
    that is also a peer's."""

    def act(scene):
        slow = [Speaker(scene, scene.identities["dripping"], source=sources[n % len(sources)], pause=1.0).connect()
                for n in range(count)]
        seen, honest = "nobody else was let in", None
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and not all(one.closed for one in slow):
            for one in slow:
                one.pump()
                one.flush()
            time.sleep(0.01)
            if honest is None and time.monotonic() > deadline - PATIENCE + 1.0:
                honest = Speaker(scene, scene.identities["app"]).connect()
                honest.quic.send_stream_data(0, message(Hello().write()))
            elif honest is not None:
                honest.turn(0.0)
                if honest.control() is not None:
                    seen = "an honest one was let in"
                elif honest.closed:
                    seen = f"an honest one was sent away: {honest.end()}"
        left = sum(one.closed is None for one in slow)
        ends = {one.end().split(":")[0] for one in slow if one.closed}
        for one in [*slow, *([honest] if honest else [])]:
            one.leave()
        return f"{seen}; {left} linger; {' '.join(sorted(ends))}"

    return act


def never_says_hello(drip=False):
    """A whole handshake, and then no HELLO; or one byte of it a second."""

    def act(scene):
        speaker = Speaker(scene, scene.identities["app"]).connect()
        speaker.until(lambda: speaker.completed)
        data = message(Hello().write())
        for byte in data[: 20 if drip else 0]:
            speaker.quic.send_stream_data(0, bytes([byte]))
            speaker.until(lambda: speaker.closed, 0.5)
        return outcome(speaker, None)

    return act


# ---- HELLO -------------------------------------------------------------------------------------------


def hello(who="app", change=None, raw=None, length=None, end=False, reset=False):
    """A HELLO that is wrong in one way."""

    def act(scene):
        speaker = Speaker(scene, scene.identities[who]).connect()
        speaker.until(lambda: speaker.completed)
        said = hello_of(scene, who)
        if change:
            change(said)
        data = said.write()
        data = raw(data) if raw else data
        speaker.quic.send_stream_data(0, message(data, length), end_stream=end)
        if reset:
            speaker.turn(0.05)
            speaker.quic.reset_stream(0, 7)
        speaker.until(lambda: speaker.closed or speaker.control())
        seen = "let in" if speaker.control() else speaker.end()
        speaker.leave()
        return seen

    return act


def sets(**values):
    """A change of a HELLO's fields."""

    def change(hello):
        for name, value in values.items():
            setattr(hello, name, value)

    return change


# ---- frames ------------------------------------------------------------------------------------------


def lane(*written, who="app", index=0, end=False, call: int | None = 1, within=PATIENCE, versions=None):
    """Writes these bytes on a lane, and waits for its end or for an answer."""

    def act(scene):
        speaker = greeted(scene, who, versions)
        data = b"".join(part(scene) if callable(part) else part for part in written)
        speaker.lane(data, index, end)
        return outcome(speaker, call, within)

    return act


def then_heard(*written, who="app", large=False, control=False):
    """Writes these bytes, which have no answer, and then asks: the connection still serves."""

    def act(scene):
        speaker = greeted(scene, who)
        data = b"".join(part(scene) if callable(part) else part for part in written)
        if control:
            speaker.quic.send_stream_data(0, data)
        elif large:
            speaker.large(data, end=True)
        else:
            speaker.lane(data, 0)
        speaker.until(lambda: speaker.closed, MOMENT)
        if speaker.closed:
            return outcome(speaker, None)
        speaker.lane(show(id=900)(scene), 1)
        return outcome(speaker, 900)

    return act


def streams(who="app", each=b"", count=1, end=False):
    """Opens streams whose first bytes are these."""

    def act(scene):
        speaker = greeted(scene, who)
        for _ in range(count):
            speaker.quic.send_stream_data(speaker.open(), each, end_stream=end)
        return outcome(speaker, None, within=5.0)

    return act


def thousands_of_streams(count=3000):
    """Opens more streams than it was permitted."""

    def act(scene):
        speaker = greeted(scene, "app")
        speaker.quic._remote_max_streams_uni = 1 << 20
        for _ in range(count):
            speaker.quic.send_stream_data(speaker.open(), b"\2")
        return outcome(speaker, None)

    return act


def opened_and_reset(count=2000):
    """Opens as many streams as it may, sends half a frame on each, resets it, and begins again."""

    def act(scene):
        speaker = greeted(scene, "app")
        half = frame("escrow.ShowPool", bytes(100_000))[:600]
        opened = 0
        deadline = time.monotonic() + PATIENCE
        while opened < count and not speaker.closed and time.monotonic() < deadline:
            allowed = speaker.quic._remote_max_streams_uni - speaker.quic._local_next_stream_id_uni // 4
            for _ in range(min(allowed - 2, count - opened)):
                stream = speaker.large(half)
                speaker.flush()
                speaker.quic.reset_stream(stream, 3)
                opened += 1
            speaker.turn(0.02)
        speaker.lane(show(id=900)(scene), 1)
        seen = outcome(speaker, 900)
        return f"{seen} after {opened}" if opened == count else f"only {opened}: {seen}"

    return act


def never_finished(connections=16, each=6):
    """On many connections as many large frames as it may, each of 4 MiB by its length and never finished;
    then nothing more."""

    def act(scene):
        speakers = [greeted(scene, "app") for _ in range(connections)]
        begun = frame("escrow.ShowPool", b"", length=(4 << 20) - 4096, crc=0) + bytes(60_000)
        large = [[one.large(begun) for _ in range(each)] for one in speakers]
        deadline = time.monotonic() + PATIENCE
        done = lambda: all(one.closed or all(s in one.stopped for s in all_of) for one, all_of in zip(speakers, large))
        while time.monotonic() < deadline and not done():
            for one in speakers:
                one.turn(0.005)
        seen = "each was stopped" if done() and not any(one.closed for one in speakers) else "; ".join(
            sorted({one.end() for one in speakers}))
        if done():
            speakers[0].lane(show(id=900)(scene), 1)
            seen += ", " + outcome(speakers[0], 900)
        for one in speakers:
            one.leave()
        return seen

    return act


def dripped(connections=4, each=4):
    """As many large frames as there may be, most of each sent, and then a byte now and then; somebody honest
    sends a large one meanwhile."""

    def act(scene):
        speakers = [greeted(scene, "flooder") for _ in range(connections)]
        begun = frame("escrow.ShowPool", b"", length=(2 << 20), crc=0) + bytes(1_200_000)
        large = [(one, one.large(begun)) for one in speakers for _ in range(each)]

        def drip(seconds):
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                for one, stream in large:
                    if stream not in one.stopped and not one.closed:
                        one.quic.send_stream_data(stream, b"\0")
                for one in speakers:
                    one.turn(0.02)

        drip(4.0)
        left = sum(stream not in one.stopped for one, stream in large)
        honest = greeted(scene, "operator")
        honest.large(show(raw=bytes(1_100_000), id=900)(scene), end=True)
        deadline = time.monotonic() + PATIENCE
        while honest.answer(900) is None and not honest.closed and time.monotonic() < deadline:
            drip(0.05)
            honest.turn(0.02)
        seen = honest.answer(900) or honest.end()
        for one in [*speakers, honest]:
            one.leave()
        return f"{left} of {len(large)} drip, {seen}"

    return act


def unread(whole=False):
    """Asks without end, on a connection whose window for answers is never opened again."""

    def act(scene):
        def batch(after):
            make = (lambda id: show(id=id)(scene)) if whole else (lambda id: frame(b"", klass=None, id=id))
            return b"".join(make(after + id) for id in range(1, 500))

        # Made before: what waits comes to its bound before the lane is given up.
        made = [] if whole else [batch(at * 500) for at in range(80)]
        speaker = Speaker(scene, scene.identities["app"])
        # The window for answers is small, and stays.
        speaker.quic._local_max_data.value = 40_000
        speaker.quic._write_connection_limits = lambda **_: None
        speaker.quic._write_stream_limits = lambda **_: None
        speaker.connect()
        if not speaker.greet(Hello().write()):
            return f"not let in: {speaker.end()}"
        speaker.until(lambda: speaker.quic._remote_max_streams_uni > 0)
        asked = 0
        deadline = time.monotonic() + PATIENCE
        while not speaker.closed and time.monotonic() < deadline:
            # The node may stop the lane a moment before it says why the connection ends.
            stopped = speaker.lanes.get(0) in speaker.stopped
            if not stopped and (not speaker.quic._streams or _unsent(speaker) < 1 << 20):
                speaker.lane(made.pop(0) if made else batch(asked), 0)
                asked += 500
            speaker.turn(0.01)
        return outcome(speaker, None, 1.0)

    return act


def _unsent(speaker: Speaker) -> int:
    stream = speaker.quic._streams.get(speaker.lanes.get(0, -1))
    return len(stream.sender._buffer) if stream else 0


def lane_reset():
    """Half a frame on a lane, and then a reset. A whole frame goes before them: only its answer tells that
    the node has read which lane that stream is, and a reset throws away what was not read yet."""

    def act(scene):
        speaker = greeted(scene, "app")
        speaker.lane(show(id=1)(scene))
        speaker.until(lambda: speaker.closed or speaker.answer(1) is not None)
        speaker.lane(show(id=2)(scene)[:90])
        speaker.turn(0.1)
        speaker.quic.reset_stream(speaker.lanes[0], 9)
        return outcome(speaker, None)

    return act


# ---- messages ----------------------------------------------------------------------------------------


def mark(scene, name: str) -> bytes:
    """The mark of a message's layout, which the node says in its HELLO."""
    return struct.pack(">I", scene.marks[name] & 0xFFFFFFFF)


def show(pool=None, *, trailing=b"", layout=None, raw=None, **how):
    """`escrow.ShowPool`."""

    def made(scene):
        body = (layout or mark(scene, "escrow.ShowPool")) + (text(pool or scene.pool) if raw is None else raw) + number(0) + trailing
        return frame("escrow.ShowPool", body, **how)

    return made


def hold(key: str, qty=1, **how):
    """`escrow.Hold` under a key."""

    def made(scene):
        body = text(scene.pool) + number(qty) + b"\0" + number(1) + text(key) + b"\0" + number(0)
        return frame("escrow.Hold", mark(scene, "escrow.Hold") + body, **how)

    return made


def aimed(name, body=b"", *, key="1", klass="inventory", more=b"", **how):
    """A message to an actor of the node: these fields, and that no build has added any."""

    def made(scene):
        data = body(scene) if callable(body) else mark(scene, name) + body + number(0)
        to = b"" if key is None else entry(TARGET, f"target@us-east/{key}")
        return frame(name, data, klass=klass, more=to + more, **how)

    return made


def notes(*said, **how):
    """`target.Note`, many under one head; a part that is bytes is put in as it is."""

    def body(scene):
        note = lambda one: one if isinstance(one, bytes) else mark(scene, "target.Note") + text(one) + number(0)
        return gathered([note(one) for one in said])

    return aimed("target.Note", body, **{"kind": wire.POSTS, **how})


def each_of(posts):
    """Gathered messages, and which of them were not taken."""

    def act(scene):
        speaker = greeted(scene, "app")
        speaker.lane(posts(scene))
        speaker.until(lambda: speaker.closed or speaker.answer(1))
        seen = speaker.answer(1) or speaker.end()
        if seen == "reply":
            seen = f"refused {wire.refused(speaker.body(1))}"
        speaker.leave()
        return seen

    return act


def flood(make, count, streams=None, unanswered=0):
    """So many calls at once; how each ended, by kinds. So many of them never do."""

    def act(scene):
        speaker = greeted(scene, "flooder", streams=streams)
        for id in range(1, count + 1):
            speaker.lane(make(id)(scene), id % 8)
            speaker.flush()
        done = lambda: len({id for _, id, _ in speaker.frames}) >= count - unanswered
        speaker.until(lambda: speaker.closed or done())
        kinds: dict[str, int] = {}
        for kind, _, body in speaker.frames:
            what = "taken" if kind == wire.REPLY else wire.fault(body).split(":")[0].removeprefix("fault ")
            kinds[what] = kinds.get(what, 0) + 1
        seen = speaker.end() if speaker.closed else ", ".join(f"{n} {what}" for what, n in sorted(kinds.items()))
        speaker.leave()
        return seen

    return act


def ahead(ms=400):
    """A program that says it is later than it is; what time the node then says that it is."""

    def act(scene):
        speaker = greeted(scene, "app")
        times = []
        for id in range(1, 6):
            later = (int(time.time() * 1000) + ms) << 16
            speaker.lane(show(id=id, hybrid=later)(scene))
            if not speaker.until(lambda: speaker.closed or speaker.answer(id)) or speaker.closed:
                return speaker.end()
            times.append((speaker.times[id] >> 16) - time.time() * 1000)
        speaker.leave()
        return "the node's time stays" if max(times) < ms / 2 else f"the node is {max(times):.0f} ms ahead"

    return act


def create(**how):
    """`escrow.CreatePool`, which only operators may ask."""

    def made(scene):
        body = text("mine") + text("inventory") + number(10) + number(0) + number(0)
        return frame("escrow.CreatePool", mark(scene, "escrow.CreatePool") + body, klass="inventory", **how)

    return made


def attest(**how):
    """`escrow.AttestPool`: that another node had sold nothing."""

    def made(scene):
        body = text(scene.pool) + text("us-east") + text("n1") + number(0) + number(0)
        return frame("escrow.AttestPool", mark(scene, "escrow.AttestPool") + body, **how)

    return made


def peer(variant=1, **how):
    """`escrow.Peer`, which nodes tell each other: how far a disk has come (1), that lives are over (3)."""

    def made(scene):
        beat = number(variant) + number(2**100) + number(3) + number(2**60) + b"\0"
        disown = number(variant) + number(2**60) + text(scene.pool)
        body = beat if variant == 1 else disown
        return frame("escrow.Peer", mark(scene, "escrow.Peer") + body, **{"kind": wire.TELL, **how})

    return made


def nested(levels=60, **how):
    """A frame in a frame in a frame."""

    def made(scene):
        inner = show(id=1)(scene)
        for _ in range(levels):
            inner = frame("escrow.ShowPool", inner)
        return frame("escrow.ShowPool", inner, **how)

    return made


def sold_once(key: str):
    """A hold whose frame is replayed: on its lane after its answer, and on another connection."""

    def act(scene):
        seen = []
        for _ in range(2):
            speaker = greeted(scene, "app")
            for id in (1, 2):
                speaker.lane(hold(key, id=id)(scene))
                if not speaker.until(lambda: speaker.closed or speaker.answer(id)) or speaker.closed:
                    return speaker.end()
                seen.append((speaker.answer(id), speaker.body(id)))
            speaker.leave()
        same = all(one == seen[0] for one in seen)
        return f"{seen[0][0]}, {'the same each time' if same else 'another one'}"

    return act


# ---- datagrams ---------------------------------------------------------------------------------------


def noise(count, make):
    """Datagrams that are none of QUIC's; what comes back is told by its first byte."""

    def act(scene):
        random.seed(7)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.bind(("127.0.0.3", 0))
            udp.setblocking(False)
            replies = set()
            for i in range(count):
                udp.sendto(make(i), scene.address)
                if i % 50 == 49:
                    time.sleep(0.005)
            deadline = time.monotonic() + MOMENT
            while time.monotonic() < deadline:
                try:
                    data = udp.recv(65536)
                except BlockingIOError:
                    time.sleep(0.01)
                    continue
                long, version = data[0] & 0x80, data[1:5]
                replies.add("negotiation" if long and version == bytes(4) else "close" if long else "reset")
        return " ".join(sorted(replies)) or "silence"

    return act


def random_bytes(_):
    return bytes([random.randrange(0, 64)]) + random.randbytes(random.randrange(0, 1400))


def short_header(_):
    return bytes([0x40 | random.randrange(64)]) + random.randbytes(random.randrange(20, 1200))


def initial(version: int, size=1200, payload=None):
    """An Initial of any version whose contents are noise."""

    def make(_):
        ids = bytes([8]) + random.randbytes(8) + bytes([8]) + random.randbytes(8)
        head = bytes([0xC3]) + struct.pack(">I", version) + ids + b"\0"
        rest = size - len(head) - 2
        return head + struct.pack(">H", 0x4000 | rest) + (payload or random.randbytes(rest))[:rest]

    return make


def first_flights(count, source="127.0.0.4"):
    """A ClientHello after another, and never a word more."""

    def act(scene):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.bind((source, 0))
            for _ in range(count):
                quic = QuicConnection(configuration=QuicConfiguration(
                    is_client=True, alpn_protocols=["rhumb/1"], server_name=scene.server_name))
                quic.connect(scene.address, now=time.monotonic())
                for data, _ in quic.datagrams_to_send(now=time.monotonic()):
                    udp.sendto(data, scene.address)
            time.sleep(MOMENT)
            speaker = Speaker(scene, scene.identities["app"]).connect()
            said = speaker.greet(Hello().write())
            seen = "an honest one was let in" if said else f"an honest one was sent away: {speaker.end()}"
            speaker.leave()
            return seen

    return act


def cancels(count):
    """A control message that gives up so many calls."""
    from_zero = b"".join(number(i) for i in range(count))
    return message(number(1) + number(count) + from_zero)
