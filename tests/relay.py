"""A TCP port in front of a broker that can be shut and opened again."""

from __future__ import annotations

import socket
import struct
import threading
from urllib.parse import urlsplit

from brokers import free_port


class Relay:
    """`url` leads to the broker while the relay is open; it begins shut."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.target = (parts.hostname or "127.0.0.1", parts.port or 5672)
        self.port = free_port()
        self.direct = url
        user = parts.netloc.rpartition("@")[0]
        self.url = parts._replace(netloc=f"{user}@127.0.0.1:{self.port}" if user else f"127.0.0.1:{self.port}").geturl()
        self.accepted = 0
        self._listener: socket.socket | None = None
        self._ends: list[socket.socket] = []
        self._lock = threading.Lock()
        self._passes = threading.Event()
        self._passes.set()
        self._answers = threading.Event()
        self._answers.set()

    def hold(self) -> None:
        """Pass nothing on any more, in either direction, until the connections are cut."""
        self._passes.clear()

    def silence(self) -> None:
        """Keep back what the broker says, until speak()."""
        self._answers.clear()

    def speak(self) -> None:
        self._answers.set()

    def open(self) -> None:
        self._passes.set()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                if self._listener is not listener:  # cut meanwhile
                    reset(client)
                    return
                self.accepted += 1
                broker = socket.create_connection(self.target)
                self._ends += [client, broker]
            for source, sink, waits in ((client, broker, None), (broker, client, self._answers)):
                threading.Thread(target=copy, args=(source, sink, self._passes, waits), daemon=True).start()

    def cut(self) -> None:
        """Break all connections and refuse new ones, as a broker does that was killed."""
        self._answers.set()
        with self._lock:
            listener, self._listener = self._listener, None
            ends, self._ends = self._ends, []
        if listener is not None:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for end in ends:
            reset(end)


def reset(end: socket.socket) -> None:
    """The peer sees a connection that broke, not one that ended."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the peer was faster
    finally:
        end.close()


def copy(source: socket.socket, sink: socket.socket, passes: threading.Event, waits: threading.Event | None) -> None:
    try:
        while data := source.recv(65536):
            if not passes.is_set():
                continue
            if waits is not None:
                waits.wait()
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        return
