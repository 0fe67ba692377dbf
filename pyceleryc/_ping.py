"""Asks a worker's HTTP address whether it is alive; what ``pyceleryc ping`` does for probes.

Probes run every few seconds, so this imports next to nothing.
"""
from __future__ import annotations

import os
import sys

# Not socket, which is made of it: that takes as long to import as Python takes to start.
import _socket

__all__ = ('EX_UNAVAILABLE', 'ask', 'parse_address', 'quick_ping')

EX_OK, EX_UNAVAILABLE = 0, 69
#: Where the address comes from when no option names it: the first is for this command, the second is the worker's own.
VARIABLES = ('CELERY_PING_HTTP_ADDRESS', 'CELERY_WORKER_HTTP_ADDRESS')
TIMEOUT = 1.0
#: Bytes of an answer that are looked at.
ANSWER_MAX = 4096


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``, ``[v6]:PORT``, ``:PORT`` or ``PORT`` (all addresses).

    :raises ValueError: it is something else, or the port is not between 0 and 65535.
    """
    host, _, port = text.strip().rpartition(':')
    if not port.isascii() or not port.isdigit() or int(port) > 65535 or (':' in host and not (host[0] == '[' and host[-1] == ']')):
        raise ValueError(f'{text!r} is not HOST:PORT; examples: 127.0.0.1:8080, [::1]:8080, :8080')
    return host.strip('[]'), int(port)


def address_from_environment() -> str | None:
    """Return the address that the environment names."""
    return next((os.environ[name] for name in VARIABLES if os.environ.get(name)), None)


def _connect(host: str, port: int, timeout: float) -> _socket.socket:
    # As bytes: for text the codec of international names would be loaded.
    name = host.encode('ascii' if host.isascii() else 'idna')
    error = OSError(f'{host} has no address')
    for family, kind, protocol, _, where in _socket.getaddrinfo(name, port, 0, _socket.SOCK_STREAM):
        connection = _socket.socket(family, kind, protocol)
        connection.settimeout(timeout)
        try:
            connection.connect(where)
            return connection
        except OSError as exc:
            connection.close()
            error = exc
    raise error


def ask(address: str, path: str, timeout: float) -> tuple[int, str]:
    """Return status and body of the worker's answer.

    :param timeout: seconds for each step.
    :raises ValueError: the address is malformed, or what answers there does not speak HTTP.
    :raises OSError: nobody answers.
    """
    host, port = parse_address(address)
    if host in ('', '*', '0.0.0.0'):
        host = '127.0.0.1'
    connection = _connect(host, port, timeout)
    try:
        connection.sendall(f'GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n'.encode())
        answer = b''
        while len(answer) < ANSWER_MAX and (chunk := connection.recv(ANSWER_MAX)):
            answer += chunk
    finally:
        connection.close()
    head, _, body = answer.partition(b'\r\n\r\n')
    words = head.split(None, 2)
    if len(words) < 2 or not words[0].startswith(b'HTTP/1.') or not words[1].isdigit():
        raise ValueError(f'{address} does not answer in HTTP')
    return int(words[1]), body.decode(errors='replace').strip()


def report(address: str, ready: bool, timeout: float) -> int:
    """Ask, print a line and return the exit code: 0 or 69."""
    try:
        status, text = ask(address, '/readyz' if ready else '/livez', timeout)
    except (OSError, ValueError) as exc:
        print(f'{address}: {exc}', file=sys.stderr)
        return EX_UNAVAILABLE
    print(f'{address}: {text}', file=sys.stdout if status == 200 else sys.stderr)
    return EX_OK if status == 200 else EX_UNAVAILABLE


def quick_ping(argv: list[str]) -> int | None:
    """Run ``ping`` without loading the rest of the command line; return the exit code.

    None: this is another command, or says more than the HTTP address, ``--ready`` and a timeout.
    """
    if not argv or argv[0] != 'ping':
        return None
    address, ready, timeout = address_from_environment(), False, TIMEOUT
    rest = iter(argv[1:])
    for word in rest:
        name, mark, value = word.partition('=')
        if name == '--ready' and not mark:
            ready = True
            continue
        value = value if mark else next(rest, '')
        if name == '--http-address':
            address = value
        elif name in ('-t', '--timeout') and value.replace('.', '', 1).isdigit():
            timeout = float(value)
        else:
            return None
    return report(address, ready, timeout) if address else None
