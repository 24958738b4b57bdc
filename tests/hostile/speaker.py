"""One connection of the attacker's: aioquic without its event loop, so that a case says what happens when."""

import select
import socket
import ssl
import time

from aioquic.quic import connection as quic
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import (ConnectionTerminated, HandshakeCompleted, StopSendingReceived, StreamDataReceived,
                                 StreamReset)

import wire

# An attacker's certificates may be of any size.
quic.CRYPTO_BUFFER_SIZE = 1 << 20

# No part of a case waits longer.
PATIENCE = 25.0
# Nothing that comes is waited for so long: what has not come by then does not come.
MOMENT = 0.4


class Speaker:
    """A QUIC connection to the node under attack."""

    def __init__(self, scene, identity=None, *, alpn="rhumb/1", ticket=None, source="127.0.0.1", pause=0.0):
        configuration = QuicConfiguration(is_client=True, alpn_protocols=[alpn], verify_mode=ssl.CERT_NONE,
                                          server_name=scene.server_name, session_ticket=ticket,
                                          max_datagram_frame_size=65536)
        configuration.max_data = configuration.max_stream_data = 1 << 24
        if identity is not None:
            configuration.certificate, configuration.private_key = identity.certificate, identity.key
            configuration.certificate_chain = identity.chain
        self.tickets = []
        self.quic = QuicConnection(configuration=configuration, session_ticket_handler=self.tickets.append)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((source, 0))
        self.socket.setblocking(False)
        self.address, self.pause = scene.address, pause
        self.completed = self.closed = None
        self.received, self.ended, self.stopped, self.frames, self.times = {}, set(), {}, [], {}
        self.lanes, self.waiting, self.next_send = {}, [], 0.0

    def connect(self):
        self.quic.connect(self.address, now=time.monotonic())
        return self

    # ---- time ----

    def flush(self):
        now = time.monotonic()
        self.waiting += self.quic.datagrams_to_send(now=now)
        while self.waiting and now >= self.next_send:
            data, address = self.waiting.pop(0)
            try:
                self.socket.sendto(data, address)
            except (BlockingIOError, ConnectionRefusedError):
                pass
            self.next_send = now + self.pause

    def turn(self, within: float):
        """Sends what is to be sent and waits for what comes, at most so long."""
        self.flush()
        until = time.monotonic() + within
        timer = self.quic.get_timer()
        if timer is not None:
            until = min(until, timer)
        if self.waiting:
            until = min(until, self.next_send)
        select.select([self.socket], [], [], max(0.0, until - time.monotonic()))
        self.pump()
        self.flush()

    def pump(self):
        while True:
            try:
                data, address = self.socket.recvfrom(65536)
            except (BlockingIOError, ConnectionRefusedError):
                break
            self.quic.receive_datagram(data, self.address, now=time.monotonic())
        timer = self.quic.get_timer()
        if timer is not None and timer <= time.monotonic():
            self.quic.handle_timer(now=time.monotonic())
        while (event := self.quic.next_event()) is not None:
            self.take(event)

    def until(self, holds, within=PATIENCE) -> bool:
        deadline = time.monotonic() + within
        while not holds():
            if time.monotonic() >= deadline:
                return False
            self.turn(min(0.2, deadline - time.monotonic()))
        return True

    # ---- what comes ----

    def take(self, event):
        if isinstance(event, HandshakeCompleted):
            self.completed = event
        elif isinstance(event, ConnectionTerminated):
            self.closed = self.closed or event
        elif isinstance(event, StreamDataReceived):
            data = self.received.get(event.stream_id, b"") + event.data
            self.received[event.stream_id] = data
            if event.end_stream:
                self.ended.add(event.stream_id)
            if event.stream_id % 4 == 3 and data[:1] == b"\1":
                found, left = wire.frames(data[2:])
                self.times |= wire.times(data[2:])
                # The node asks and tells too: those are not answers.
                self.frames += [one for one in found if one[0] in (wire.REPLY, wire.FAULT)]
                self.frames += [(wire.REPLY, id, b"") for kind, _, body in found if kind == wire.TAKEN
                                for id in wire.taken(body)]
                self.received[event.stream_id] = data[:2] + left
        elif isinstance(event, StreamReset):
            self.ended.add(event.stream_id)
        elif isinstance(event, StopSendingReceived):
            self.stopped[event.stream_id] = event.error_code

    def end(self) -> str:
        """How the connection ended, as the attacker sees it."""
        if self.closed is None:
            return "open"
        code, reason = self.closed.error_code, self.closed.reason_phrase
        if self.closed.frame_type is None:
            return f"close {code}: {reason}"
        return f"tls {code - 0x100}: {reason}" if 0x100 <= code < 0x200 else f"quic {code}: {reason}"

    def control(self) -> bytes | None:
        """The first message of the control stream."""
        data = self.received.get(0, b"")
        size = int.from_bytes(data[:4], "big")
        return data[4 : 4 + size] if len(data) >= 4 + size else None

    def answer(self, call: int) -> str | None:
        for kind, id, body in self.frames:
            if id == call:
                return "reply" if kind == wire.REPLY else wire.fault(body)
        return None

    def body(self, call: int) -> bytes:
        return next(body for _, id, body in self.frames if id == call)

    # ---- what goes ----

    def greet(self, hello: bytes) -> bool:
        """Says HELLO; whether it was acknowledged."""
        self.quic.send_stream_data(0, wire.message(hello))
        self.until(lambda: self.closed or self.control())
        return self.control() is not None

    def open(self) -> int:
        stream = self.quic.get_next_available_stream_id(is_unidirectional=True)
        self.quic.send_stream_data(stream, b"")
        return stream

    def lane(self, data: bytes, index=0, end=False):
        """Writes on a lane of its own."""
        if index not in self.lanes:
            self.lanes[index] = self.open()
            data = bytes([1, index]) + data
        self.quic.send_stream_data(self.lanes[index], data, end_stream=end)

    def large(self, data: bytes, end=False) -> int:
        stream = self.open()
        self.quic.send_stream_data(stream, b"\2" + data, end_stream=end)
        return stream

    def leave(self):
        if self.closed is None:
            self.quic.close()
            self.flush()
        self.socket.close()
