"""Telling systemd how the service is (``Type=notify``): the protocol of sd_notify(3), a datagram per message."""
from __future__ import annotations

import os
import socket
import time

__all__ = ('notify', 'ready', 'reloading', 'stopping', 'watchdog', 'watchdog_interval')


def notify(*lines: str) -> bool:
    """Send *lines* such as ``READY=1``; tell whether there was somebody to send them to.

    The environment variable ``NOTIFY_SOCKET`` names the socket; a service manager that is not there, or does not
    listen any more, must never hurt the service.
    """
    address = os.environ.get('NOTIFY_SOCKET')
    if not address or address[0] not in '/@':
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
        try:
            sender.sendto('\n'.join(lines).encode(), '\0' + address[1:] if address[0] == '@' else address)
        except OSError:
            return False
    return True


def ready(status: str) -> bool:
    """The service is up."""
    return notify('READY=1', f'MAINPID={os.getpid()}', f'STATUS={status}')


def reloading() -> bool:
    """The service begins anew, in the same process; :func:`ready` follows."""
    return notify('RELOADING=1', f'MONOTONIC_USEC={time.monotonic_ns() // 1000}', 'STATUS=Restarting')


def stopping(status: str) -> bool:
    """The service ends."""
    return notify('STOPPING=1', f'STATUS={status}')


def watchdog() -> bool:
    """The service is alive; due once in each :func:`watchdog_interval`."""
    return notify('WATCHDOG=1')


def watchdog_interval() -> float | None:
    """Return how often, in seconds, systemd is to be told; None if it does not ask (``WatchdogSec=``)."""
    span, whose = os.environ.get('WATCHDOG_USEC', ''), os.environ.get('WATCHDOG_PID', '')
    if not os.environ.get('NOTIFY_SOCKET') or not span.isdigit() or whose not in ('', str(os.getpid())):
        return None
    # Half of what is allowed, as sd_watchdog_enabled(3) recommends.
    return int(span) / 2e6 or None
