"""The attacks: a line each. What it is; what the attacker does; what it sees (a regular expression: how the
connection ended, or the answer); and the series of the node's metrics that must rise, where that is one which only
the attack moves.

`tls N` is an alert in the handshake (RFC 8446 §6), `quic N` a transport error (RFC 9000 §20.1), `close N` a code of
Rhumb's own (docs/security.md), `fault KIND` the answer to a call.
"""

from dataclasses import dataclass
from typing import Callable

import wire
from acts import (ahead, aimed, attest, cancels, create, dial, dripped, dripping, each_of, early, first_flights, flood,
                  hello, hold, initial, lane, lane_reset, nested, never_finished, never_says_hello, noise, notes,
                  opened_and_reset, outlives, peer, random_bytes, revoked_alive, sets, short_header, show, sold_once,
                  streams, then_heard, thousands_of_streams, unread)
from wire import CALLER, EPOCH, NAME, TARGET, entry, frame, gathered, message, number, text


@dataclass
class Case:
    name: str
    act: Callable
    seen: str
    # A regular expression; none where what the attacker saw says it all.
    counted: str | None = None
    # MiB by which the node may have grown, at its highest and in the end.
    memory: int = 24


def away(reason):
    return rf'rhumb_connections_turned_away_total\{{reason="{reason}"\}}'


def ended(reason):
    return rf'rhumb_connections_ended_total\{{reason="{reason}"\}}'


def refused(reason):
    return rf'rhumb_calls_refused_total\{{reason="{reason}"\}}'


def dropped(what):
    return rf'rhumb_transport_dropped_total\{{what="{what}"\}}'


def untold(reason):
    return rf'rhumb_tells_refused_total\{{reason="{reason}"\}}'


def came(kind):
    return rf'rhumb_datagrams_total\{{kind="{kind}"\}}'


def served(method, outcome):
    return rf'rhumb_rpc_server_call_duration_seconds_count\{{method="{method}",outcome="{outcome}"\}}'


CERTIFICATES = [
    Case("a certificate of another authority", dial("another authority"), "tls 48", away("unknown_authority")),
    Case("the same with its chain", dial("with another authority's chain"), "tls 48", away("unknown_authority")),
    Case("a certificate signed by a leaf", dial("signed by a leaf"), "tls 4[268]", away("certificate")),
    Case("a certificate that has expired", dial("expired"), "tls 45", away("expired")),
    Case("a certificate that is not yet valid", dial("not yet valid"), "tls 45", away("expired")),
    Case("a certificate that was revoked", dial("revoked"), "tls 44", away("revoked")),
    Case("a certificate that is revoked while it is in use", revoked_alive("guest"), "close 7: .*revoked", ended("revoked")),
    Case("a certificate that expires while it is in use", outlives(3.0), "close 8: .*expired", ended("expired")),
    Case("no certificate", dial("nobody"), "tls 116", away("no_certificate")),
    Case("a client of no region of the mesh", dial("of no region of the mesh"), "tls 49", away("region")),
    Case("a node of no region of the mesh", dial("node of no region of the mesh"), "tls 49", away("region")),
    Case("another trust domain", dial("of another trust domain"), "tls 4[26]", away("certificate")),
    Case("two identities", dial("with two identities"), "tls 4[26]", away("certificate")),
    Case("no identity", dial("without an identity"), "tls 4[26]", away("certificate")),
    Case("an unknown role", dial("of an unknown role"), "tls 4[26]", away("certificate")),
    Case("an identity that climbs", dial("of a path that climbs"), "tls 4[26]", away("certificate")),
    Case("an authority's certificate as a leaf", dial("an authority's own"), "tls 4[26]", away("certificate")),
    Case("a certificate for signing code", dial("for no purpose of ours"), "tls 4[236]", away("certificate")),
    Case("a certificate without its key", dial("without its key"), "tls 51", away("certificate")),
    Case("a chain of hundreds", dial("with a chain of hundreds"), "(tls|quic) ", away("protocol")),
    Case("a certificate with thousands of names", dial("with thousands of names"), "(tls|quic) ", away("protocol")),
    Case("another protocol", dial("app", alpn="h3"), "tls 120", away("protocol")),
    Case("0-RTT without a certificate", early("nobody"), "tls 116", came("early")),
    Case("0-RTT with a certificate", early("app"), "let in", came("early")),
]

HELLO = [
    Case("a client's certificate as a node's", hello(change=sets(node=("us-east", "app"))), "close 20: .*certificate says client", away("hello")),
    Case("a client as a node of the mesh", hello(change=sets(node=("eu-central", "n1"))), "close 20: .*certificate says client", away("hello")),
    Case("a node as another node", hello("node", sets(node=("eu-central", "n1"))), "close 20: .*certificate says node", away("hello")),
    Case("a node as a client", hello("node", sets(node=None)), "close 20: .*no node", away("hello")),
    Case("the node's own certificate", dial("itself"), "close 21: ", away("hello")),
    Case("a node of another mesh", hello("node", sets(cluster=7)), "close 17: .*belongs to cluster", away("hello")),
    Case("a node of another founding list", hello("node", sets(founding=bytes(32))), "close 18: .*founding node list", away("hello")),
    Case("a node that names no mesh", hello("node", sets(cluster=None)), "close 22: ", away("hello")),
    Case("a version of later", hello(change=sets(versions=(9, 10))), "close 16: .*versions 9 to 10", away("hello")),
    Case("versions the wrong way round", hello(change=sets(versions=(3, 1))), "close 16: ", away("hello")),
    Case("an unknown codec", hello(change=sets(codecs=[7])), r"close 19: .*codecs \[7\]", away("hello")),
    Case("no codec", hello(change=sets(codecs=[])), "close 19: ", away("hello")),
    Case("hundreds of thousands of codecs", hello(change=sets(codecs=[7] * 250_000)), "close 22: ", away("hello")),
    Case("a build of hundreds of kilobytes", hello(change=sets(build="x" * 250_000)), "close 22: ", away("hello")),
    Case("a manifest of tens of thousands", hello(change=sets(manifest=[("", 0, 0)] * 80_000)), "close 22: ", away("hello")),
    Case("a manifest of a huge claimed length", hello(raw=lambda d: d[:14] + b"\xfd" + b"\xff" * 8), "close 22: ", away("hello")),
    Case("a HELLO with trailing bytes", hello(raw=lambda d: d + b"\0"), "close 22: .*", away("hello")),
    Case("half a HELLO", hello(raw=lambda d: d[: len(d) // 2]), "close 22: ", away("hello")),
    Case("no HELLO but noise", hello(raw=lambda d: b"GET / HTTP/1.1\r\n\r\n"), "close 22: .*not a HELLO", away("hello")),
    Case("a HELLO of four gigabytes", hello(length=0xFFFFFFFF), "close 22: .*4294967295", away("hello")),
    Case("a HELLO that ends half way", hello(length=5000, end=True), "close 22: ", away("hello")),
    Case("a HELLO that is reset half way", hello(length=5000, reset=True), "close 22: ", away("hello")),
    Case("no HELLO at all", never_says_hello(), "close 25: ", away("timeout")),
    Case("a HELLO, a byte now and then", never_says_hello(drip=True), "close 25: ", away("timeout")),
]

FRAMES = [
    Case("a frame that does not begin as one", lane(frame("x", magic=0x4745)), "close 3: .*begins with", ended("framing")),
    Case("a frame of another version", lane(frame("x", version=9)), "close 3: .*version 9", ended("framing")),
    Case("a head that is too short", lane(frame("x", head=20)), "close 3: .*header of 20", ended("framing")),
    Case("a head that is too long", lane(frame("x", head=65535)), "close 3: .*header of 65535", ended("framing")),
    Case("an oversized frame", lane(show(raw=bytes(1 << 20))), "close 3: .*over the cap", ended("framing")),
    Case("a frame of four gigabytes", lane(frame("x", length=0xFFFFFFFF)), "close 3: .*over the cap", ended("framing")),
    Case("a large frame of four gigabytes", streams(each=b"\2" + frame("x", length=0xFFFFFFFF)), "close 3: .*over the cap", ended("framing")),
    Case("a wrong checksum", lane(frame("x", crc=7)), "close 3: .*checksum", ended("framing")),
    Case("a truncated frame", lane(lambda s: show()(s)[:-3], end=True), "close 3: .*middle of a frame", ended("protocol")),
    Case("bytes between frames", lane(show(id=7), b"\0\0", frame("x"), call=None), "close 3: .*begins with", ended("framing")),
    Case("a body with trailing bytes", lane(show(trailing=b"\0")), "fault decode: .*", served("escrow.ShowPool", "decode")),
    Case("a body that is truncated", lane(show(raw=number(9) + b"con")), "fault decode", served("escrow.ShowPool", "decode")),
    Case("a body of a huge claimed length", lane(show(raw=b"\xfd" + b"\xff" * 7 + b"\x0f")), "fault decode", served("escrow.ShowPool", "decode")),
    Case("a body that is no text", lane(show(raw=number(4) + b"\xff\xfe\xfd\xfc")), "fault decode", served("escrow.ShowPool", "decode")),
    Case("a name that is none", lane(show("../../etc")), "fault decode", served("escrow.ShowPool", "decode")),
    Case("another layout", lane(show(layout=b"\1\2\3\4")), "fault skew", served("escrow.ShowPool", "skew")),
    Case("frames in frames", lane(nested()), "fault (decode|skew)", served("escrow.ShowPool", "skew")),
    Case("a megabyte of nesting", lane(show(raw=b"\1" * 1_000_000)), "fault decode", served("escrow.ShowPool", "decode")),
    Case("a kind that is none", then_heard(frame("x", kind=77)), "reply", dropped("not_understood")),
    Case("an unknown codec of a frame", lane(show(codec=9)), "fault decode: .*codec 9", refused("decode")),
    Case("a frame without a class", lane(show(klass=None)), "fault decode: .*data class", refused("decode")),
    Case("a frame without a name", lane(frame("")), "fault decode: .*name", refused("decode")),
    Case("a name of hundreds of bytes", lane(frame("x" * 400)), "fault decode", refused("decode")),
    Case("a name that is no text", lane(frame(b"\xff\xfe")), "fault decode", refused("decode")),
    Case("a field longer than its head", lane(show(more=entry(NAME, b"x", length=999))), "fault decode", refused("decode")),
    Case("thousands of callers", lane(show(more=entry(CALLER, b"") * 5000)), "fault decode: .*more than 32 callers", refused("decode")),
    Case("thousands of fields of later versions", lane(show(more=entry(200, b"") * 5000)), "reply"),
    Case("bytes after a large frame", then_heard(lambda s: show()(s) + b"more", large=True), "close 3: .*more than that", ended("protocol")),
    Case("a level that is none", lane(show(guarantee=99)), "fault decode: .*guarantee 99", refused("decode")),
    Case("a message that nobody serves", lane(frame("made.Up")), "fault unknown_message", served("_other", "unknown_message")),
    Case("a thousand made-up messages", then_heard(b"".join(frame(f"made.Up{i}", kind=wire.TELL, id=0) for i in range(1000))), "reply", untold("unknown_message")),
    Case("answers that nobody asked for", then_heard(b"".join(frame(kind=wire.REPLY, id=i) for i in range(500))), "reply", dropped("answers_unwanted")),
    Case("a fault that is none", then_heard(frame(kind=wire.FAULT, body=b"\xff" * 50, id=3)), "reply", dropped("answers_unwanted")),
    Case("a call that is replayed while it runs", lane(hold("twice", id=7), hold("twice", id=7), call=None), "close 3: .*call 7 was used twice", ended("protocol")),
    Case("a hold that is replayed", sold_once("replayed"), "reply, the same each time"),
]

STREAMS = [
    Case("a stream of an unknown kind", streams(each=b"\x63"), "close 3: .*stream of kind 99", ended("protocol")),
    Case("a lane that was not agreed", streams(each=b"\1\x3f"), "close 3: .*lane 63", ended("protocol")),
    Case("the same lane twice", streams(each=b"\1\0", count=2), "close 3: .*lane 0 .*twice", ended("protocol")),
    Case("streams by the thousand", thousands_of_streams(), "quic 4: ", ended("protocol")),
    Case("streams reset half way, by the thousand", opened_and_reset(), "reply after 2000", dropped("large_abandoned")),
    Case("large frames that are never finished", never_finished(), "each was stopped, reply", dropped("large_abandoned")),
    Case("large frames that drip", dripped(), "[1-3] of 16 drip, fault decode", dropped("large_abandoned")),
    Case("a lane that is reset half way", lane_reset(), "close 3: ", ended("protocol")),
    Case("a large frame cut short", then_heard(lambda s: show()(s)[:-2], large=True), "reply", dropped("large_abandoned")),
    Case("control messages that are none", then_heard(b"".join(message(bytes([200, i])) for i in range(20)), control=True), "reply", dropped("control_not_understood")),
    Case("an oversized control message", then_heard(message(b"", length=1 << 30), control=True), "close 3: .*over", ended("protocol")),
    Case("cancellations by the ten thousand", then_heard(b"".join(cancels(4000) for _ in range(10)), control=True), "reply"),
    Case("nonsense by who never reads its answers", unread(), "close 3: .*does not read", ended("protocol"), memory=80),
    # What docs/security.md says of one connection with one lane: what waits to be handled, two windows, a lane's answers.
    Case("calls by who never reads its answers", unread(whole=True), "close 3: .*(faults wait on a lane|did not read)", ended("(protocol|stalled)"), memory=64 + 36 + 9),
    Case("cancellations of a huge claimed number", then_heard(message(b"\1\xfd" + b"\xff" * 8), control=True), "reply", dropped("control_not_understood")),
]

CLAIMS = [
    Case("a client that administers", lane(create()), "fault unauthorized", served("escrow.CreatePool", "unauthorized")),
    Case("a client that attests", lane(attest()), "fault unauthorized", served("escrow.AttestPool", "unauthorized")),
    Case("a client that speaks as a node", then_heard(peer(id=0)), "reply", untold("unauthorized")),
    Case("an operator that speaks as a node", then_heard(peer(3, id=0), who="operator"), "reply", untold("unauthorized")),
    Case("a client that asks what is told", lane(peer(kind=wire.ASK)), "fault unauthorized", served("escrow.Peer", "unauthorized")),
    Case("a class that there is not", lane(show(klass="made-up")), "fault gate", refused("gate")),
    Case("a class that may not come from there", lane(show(klass="personal"), who="node"), "fault gate: .*personal", refused("gate")),
    Case("a class that is none", lane(show(klass="no class!")), "fault decode", refused("decode")),
    Case("a tell of a class that may not come", then_heard(peer(id=0, klass="personal"), who="node"), "reply", dropped("tells_refused")),
    Case("a peer's message under another class", then_heard(peer(id=0, klass="inventory"), who="node"), "reply", untold("class_lowered")),
    Case("an actor of another region", lane(show(more=entry(TARGET, "cart@eu-central/42"))), "fault not_hosted", served("escrow.ShowPool", "not_hosted")),
    Case("an address that is none", lane(show(more=entry(TARGET, "no address"))), "fault not_hosted", served("escrow.ShowPool", "not_hosted")),
    Case("an epoch of another life", lane(show(more=entry(EPOCH, (99).to_bytes(8, "big"))), who="node"), "fault wrong_epoch", served("escrow.ShowPool", "wrong_epoch")),
    Case("an epoch that is none", lane(show(more=entry(EPOCH, b"\1\2"))), "fault decode: .*epoch", refused("decode")),
    Case("a time of the far future", lane(show(hybrid=(1 << 64) - 1), who="node"), "reply", "rhumb_clock_merges_refused_total"),
    Case("a deadline of weeks", lane(show(deadline=0xFFFFFFFF)), "reply"),
    Case("no time left", lane(aimed("target.Fill", number(9), deadline=0)), "fault deadline", served("target.Fill", "deadline")),
]

GATHERED = [
    Case("no message under a head", lane(notes()), "fault decode: .*no message", served("target.Note", "decode")),
    Case("as many messages as may be under one head", lane(notes(*["x"] * 256)), "reply", served("target.Note", "ok")),
    Case("one more", lane(notes(*["x"] * 257)), "fault decode: .*more than 256", served("target.Note", "decode")),
    Case("more bytes than may be under one head", lane(notes(*["x" * 4000] * 9)), "fault decode: .*under one head", served("target.Note", "decode")),
    Case("a gathered message longer than its frame", lane(aimed("target.Note", lambda s: b"\x7f\xff\xff\xffx", kind=wire.POSTS)), "fault decode: .*are left", served("target.Note", "decode")),
    Case("a gathered message's length cut short", lane(aimed("target.Note", lambda s: b"\0\0", kind=wire.POSTS)), "fault decode: .*length", served("target.Note", "decode")),
    Case("thousands of callers of gathered messages", lane(notes(*[b""] * 256, more=entry(CALLER, b"") * 4000)), "fault decode: .*more than 32 callers", refused("decode")),
    Case("a lane of gathered nonsense", lane(*[notes(*[b""] * 256, id=n, more=entry(CALLER, b"x" * 400) * 30) for n in range(1, 80)], call=79), "reply", served("target.Note", "ok")),
    Case("nonsense between gathered messages", each_of(notes("x", b"\xff" * 9, "x")), r"refused 1\+1: skew$"),
    Case("gathered messages under another class", each_of(notes("x", "x", klass="control")), r"refused 0\+2: class_lowered$"),
    Case("gathered messages for nobody", lane(notes("x", key=None)), "fault unknown_message"),
    Case("gathered messages for an actor of another node", lane(notes("x", more=entry(TARGET, "target@eu-central/1"))), "fault moved", served("target.Note", "moved")),
    Case("gathered messages of who agreed to none", lane(notes("x"), versions=(1, 1)), "close 3: .*not agreed", ended("protocol")),
    Case("word of taken calls that are none", then_heard(frame(kind=wire.TAKEN, id=0, body=bytes(24))), "reply", dropped("answers_unwanted")),
    Case("word of taken calls by the hundred thousand", lane(frame(kind=wire.TAKEN, id=0, body=bytes(800_000)), call=None), "close 3: .*ids", ended("protocol")),
    Case("word of taken calls of who agreed to none", lane(frame(kind=wire.TAKEN, id=0, body=bytes(8)), call=None, versions=(1, 1)), "close 3: .*not agreed", ended("protocol")),
]

ACTORS = [
    Case("more than a mailbox has room for", flood(lambda n: aimed("target.Sit", number(0), kind=wire.POST, key="full", id=n), 1500), "476 full, 1024 taken", served("target.Sit", "full")),
    Case("more bytes than may wait to be handled", flood(lambda n: aimed("target.Sit", number(900_000) + bytes(900_000), kind=wire.POST, key=str(n), id=n), 14), "5 full, 9 taken", refused("full")),
    Case("large answers that nobody reads", flood(lambda n: aimed("target.Fill", number(1_500_000), id=n), 14, streams=8, unanswered=5), "9 full"),
    Case("a key with another body", flood(lambda n: aimed("target.Count", text("same") + number(n), more=entry(wire.KEY, "us-east:same"), id=n), 5), "4 key_reused, 1 taken"),
    Case("an actor that nobody hosts", lane(show(more=entry(TARGET, "nothing/42"))), "fault not_hosted", served("escrow.ShowPool", "not_hosted")),
    Case("a broadcast by a program", lane(aimed("target.Note", text("x"), key=None, more=entry(TARGET, "target*"))), "fault unauthorized", served("target.Note", "unauthorized")),
    Case("a program that says it is later", ahead(), "the node's time stays"),
]

DATAGRAMS = [
    Case("noise", noise(3000, random_bytes), "silence", came("stray")),
    Case("packets of connections that there are not", noise(2000, short_header), "silence", came("stray")),
    Case("empty and tiny datagrams", noise(500, lambda i: bytes(i % 4)), "silence", came("stray")),
    Case("an unknown version of QUIC", noise(500, initial(0x1A2A3A4A)), "negotiation", came("version")),
    Case("Initials of noise", noise(500, initial(1)), "silence", came("initial")),
    Case("Initials too small to be answered", noise(500, initial(1, size=300)), "silence", came("stray")),
    Case("ClientHellos and never a word more", first_flights(300), "an honest one was let in", away("timeout")),
    Case("handshakes that drip", dripping(100), "an honest one was let in; 0 linger", away("timeout")),
    Case("handshakes that drip from two addresses", dripping(160, ("127.0.0.2", "127.0.0.5")), "an honest one was let in; 0 linger", away("timeout")),
]

CASES = [*CERTIFICATES, *HELLO, *FRAMES, *STREAMS, *CLAIMS, *GATHERED, *ACTORS, *DATAGRAMS]
