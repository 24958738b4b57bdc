"""Rhumb's bytes, written from the documents and not from the code: HELLO, frames, faults, bincode.

Everything can be written wrong on purpose: each length, checksum and number is an argument.
"""

import os
import struct
from dataclasses import dataclass, field

ASK, TELL, REPLY, FAULT, POST, POSTS, TAKEN = 1, 2, 3, 4, 5, 6, 7
FIXED = 72
# Kinds of faults in the order of their numbers on the wire.
FAULTS = (
    "unreachable deadline full draining gate unknown_message decode too_large unauthorized handler storage"
    " cycle not_hosted moved failed panicked class_lowered guarantee skew wrong_epoch abandoned key_reused"
).split()


def _crc_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_TABLE = _crc_table()


def crc32c(data: bytes) -> int:
    crc, said = 0xFFFFFFFF, data.rstrip(b"\0")
    for byte in said:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return _after_zeros(crc, len(data) - len(said)) ^ 0xFFFFFFFF


def _after_zeros(crc: int, count: int) -> int:
    """The register after so many bytes of zero: what one does is linear, and squared again and again."""
    once = [_TABLE[(1 << bit) & 0xFF] ^ (1 << bit) >> 8 for bit in range(32)]
    while count:
        if count & 1:
            crc = _applied(once, crc)
        once, count = [_applied(once, column) for column in once], count >> 1
    return crc


def _applied(matrix: list[int], crc: int) -> int:
    out = 0
    for bit in range(32):
        if crc >> bit & 1:
            out ^= matrix[bit]
    return out


# ---- bincode 2, standard configuration ---------------------------------------------------------------


def number(value: int) -> bytes:
    """An unsigned integer of variable length."""
    if value < 251:
        return bytes([value])
    for tag, size in ((251, 2), (252, 4), (253, 8), (254, 16)):
        if value < 1 << 8 * size:
            return bytes([tag]) + value.to_bytes(size, "little")
    raise ValueError(value)


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return number(len(data)) + data


def optional(value: bytes | None) -> bytes:
    return b"\0" if value is None else b"\1" + value


class Reading:
    """Reads what the node wrote."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        if self.at + size > len(self.data):
            raise ValueError("the node's bytes end too soon")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self) -> int:
        first = self.take(1)[0]
        if first < 251:
            return first
        return int.from_bytes(self.take({251: 2, 252: 4, 253: 8, 254: 16}[first]), "little")

    def text(self) -> bytes:
        return self.take(self.number())


# ---- HELLO -------------------------------------------------------------------------------------------


@dataclass
class Hello:
    versions: tuple[int, int] = (1, 2)
    cluster: int | None = None
    node: tuple[str, str] | None = None
    founding: bytes | None = None
    boot: int = field(default_factory=lambda: int.from_bytes(os.urandom(8), "little"))
    codecs: list[int] = field(default_factory=lambda: [1])
    lanes: int = 8
    manifest: list[tuple[str, int, int]] = field(default_factory=list)
    build: str = "0.1.0"

    def write(self) -> bytes:
        node = None if self.node is None else text(self.node[0]) + text(self.node[1])
        manifest = b"".join(text(name) + number(v) + number(mark) for name, v, mark in self.manifest)
        return b"".join(
            [
                b"RHLO",
                struct.pack(">HH", *self.versions),
                optional(None if self.cluster is None else number(self.cluster)),
                optional(node),
                optional(self.founding),
                number(self.boot),
                text(bytes(self.codecs)),
                number(self.lanes),
                number(len(self.manifest)) + manifest,
                text(b""),
                number(1),
                text(self.build),
            ]
        )

    @staticmethod
    def read(data: bytes) -> "Hello":
        if data[:4] != b"RHLO":
            raise ValueError("the node's HELLO is none")
        reading = Reading(data[8:])
        some = lambda: reading.take(1) == b"\1"
        hello = Hello(versions=struct.unpack(">HH", data[4:8]))
        hello.cluster = reading.number() if some() else None
        hello.node = (reading.text().decode(), reading.text().decode()) if some() else None
        hello.founding = reading.take(32) if some() else None
        hello.boot = reading.number()
        hello.codecs = list(reading.text())
        hello.lanes = reading.number()
        entry = lambda: (reading.text().decode(), reading.number(), reading.number())
        hello.manifest = [entry() for _ in range(reading.number())]
        return hello


def message(data: bytes, length: int | None = None) -> bytes:
    """A message of the control stream."""
    return struct.pack(">I", len(data) if length is None else length) + data


# ---- frames ------------------------------------------------------------------------------------------

NAME, CLASS, KEY, EPOCH, CALLER, TARGET = 1, 2, 3, 4, 5, 6


def entry(kind: int, value: str | bytes, length: int | None = None) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack(">BH", kind, len(data) if length is None else length) + data


def frame(
    name: str | bytes = b"",
    body: bytes = b"",
    *,
    kind=ASK,
    id=1,
    klass: str | bytes | None = "control",
    codec=1,
    magic=0x5268,
    version=1,
    flags=0,
    head=None,
    length=None,
    deadline=20_000,
    hybrid=0,
    guarantee=0,
    required=0,
    crc=None,
    more: bytes = b"",
) -> bytes:
    """One frame; lengths and the checksum are right unless they are given."""
    fields = (entry(NAME, name) if name else b"") + (entry(CLASS, klass) if klass is not None else b"") + more
    head = FIXED + len(fields) if head is None else head
    length = len(body) if length is None else length
    fixed = struct.pack(">HBBBBHIQQIQBBBB", magic, version, kind, codec, flags, head, length, id, 0, deadline,
                        hybrid, guarantee, required, 0, 0) + bytes(24)
    crc = crc32c(fixed + bytes(4) + fields + body) if crc is None else crc
    return fixed + struct.pack(">I", crc) + fields + body


def times(data: bytes) -> dict[int, int]:
    """The hybrid times of whole answers, by call."""
    found = {}
    while len(data) >= FIXED:
        head, length = struct.unpack(">HI", data[6:12])
        if len(data) < head + length:
            break
        found[struct.unpack(">Q", data[12:20])[0]] = struct.unpack(">Q", data[32:40])[0]
        data = data[head + length :]
    return found


def gathered(messages: list[bytes]) -> bytes:
    """Messages under one head."""
    return b"".join(struct.pack(">I", len(one)) + one for one in messages)


def taken(body: bytes) -> list[int]:
    """The calls of a frame that says that they were taken."""
    return list(struct.unpack(f">{len(body) // 8}Q", body))


def refused(body: bytes) -> str:
    """What of gathered messages was not taken, and why."""
    if not body:
        return "none"
    reading, runs = Reading(body), []
    for _ in range(reading.number()):
        first, count = reading.number(), reading.number()
        runs.append(f"{first}+{count}: {fault(reading.text()).split(':')[0].removeprefix('fault ')}")
    return ", ".join(runs)


def frames(data: bytes) -> tuple[list[tuple[int, int, bytes]], bytes]:
    """The whole frames of a lane, as (kind, call, body), and what is left."""
    found = []
    while len(data) >= FIXED:
        head, length = struct.unpack(">HI", data[6:12])
        if len(data) < head + length:
            break
        found.append((data[3], struct.unpack(">Q", data[12:20])[0], data[head : head + length]))
        data = data[head + length :]
    return found, data


def fault(body: bytes) -> str:
    """A fault's kind and what can be read of its text."""
    reading = Reading(body)
    if reading.number() == 0:
        kind, rest = reading.number(), body[2:]
    else:
        reading.number()
        if reading.take(1) == b"\1":
            reading.number()
        rest = reading.text()
        kind = reading.text()[0]
    said = "".join(c if c.isprintable() else " " for c in rest.decode("utf-8", "replace"))
    return f"fault {FAULTS[kind] if kind < len(FAULTS) else kind}: {' '.join(said.split())}"
