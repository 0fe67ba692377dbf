"""A few Redis commands, without a client library: to look at keys from tests."""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit


class Redis:
    """A few commands, without a client library."""

    def __init__(self, url: str, database: int, select: bool = True) -> None:
        parts = urlsplit(url)
        self.url = f"redis://{parts.hostname}:{parts.port or 6379}/{database}"
        self.socket = socket.create_connection((parts.hostname, parts.port or 6379), 5)
        self.file = self.socket.makefile("rb")
        if select:  # a Sentinel has no databases
            self("SELECT", str(database))

    def __call__(self, *words: str) -> Any:
        encoded = [word.encode() for word in words]
        self.socket.sendall(b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in encoded))
        return self._reply()

    def _reply(self) -> Any:
        line = self.file.readline().rstrip()
        kind, rest = line[:1], line[1:]
        if kind == b"-":
            raise RuntimeError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"+":
            return rest.decode()
        if int(rest) < 0:
            return None
        if kind == b"$":
            return self.file.read(int(rest) + 2)[:-2].decode()
        return [self._reply() for _ in range(int(rest))]

    def close(self) -> None:
        self.file.close()
        self.socket.close()
