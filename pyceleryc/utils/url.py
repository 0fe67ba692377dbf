"""URLs of brokers and result stores as people may see them."""
from __future__ import annotations

import re

__all__ = ('hide_password',)

#: Between two of several URLs in one text, for failover.
_BETWEEN = re.compile(r'([;,])(?=[a-zA-Z][\w+.-]*://)')
_AFTER_HOSTS = re.compile(r'[/?#]')
_PORT = re.compile(r'(\[[^]]*\]|[^:]*)(:\d*)?(,|$)')


def hide_password(url: str, mask: str = '**') -> str:
    """Return *url*, or URLs separated by semicolons, with *mask* for passwords and without queries.

    Whatever it is, nothing is raised: rather too much is hidden than too little.  One URL may name
    several hosts (``mongodb://user:password@one:1,two:2/db``).
    """
    if not isinstance(url, str):  # of a setting, whatever was put there
        return url
    return ''.join(text if text in (';', ',') else _hide(text, mask) for text in _BETWEEN.split(url))


def _hide(url: str, mask: str) -> str:
    scheme, found, rest = url.partition('://')
    if not found and '@' not in url:
        return url
    if not found:
        scheme, rest = '', url
    hosts, tail = _split(rest)
    if '@' not in hosts and '@' in tail and ':' in hosts and not _PORT.match(hosts):
        # A password with a slash that should have been quoted.
        secret, _, rest = rest.rpartition('@')
        hosts, tail = _split(rest)
        hosts = f'{secret}@{hosts}'
    credentials, at, hosts = hosts.rpartition('@')
    user, _, password = credentials.partition(':')
    shown = f'{user}:{mask}' if password else user
    path = re.split('[?#]', tail)[0] or ('/' if found else '')
    return f'{scheme}{found}{shown}{at if shown else ""}{hosts}{path}'


def _split(rest: str) -> tuple[str, str]:
    end = _AFTER_HOSTS.search(rest)
    return (rest, '') if end is None else (rest[:end.start()], rest[end.start():])
