"""The reply queue of ``rpc://`` in Redis: a list that is read with the core's client, many messages at once."""
from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

from pyceleryc.backends.core import Client
from pyceleryc.backends.replies import Receiver

__all__ = ('RedisReceiver', 'reply_list')

logger = logging.getLogger('celery.backends')

#: Seconds for which Redis waits for a message; seconds more for which its answer is waited for, unless ``socket_timeout`` is set.
BLOCK, ANSWER = 10, 15.0
#: Between the name of a queue and a priority: kombu's default.
SEPARATOR = '\x06\x16'
#: Most messages that are read at once.
AT_ONCE = 500


def reply_list(config: dict[str, Any], queue: str) -> str:
    """Return the name of the list that a message of the lowest priority for *queue* is in."""
    return _lists(config, queue)[0]


def _lists(config: dict[str, Any], queue: str) -> list[str]:
    name = config.get('key_prefix', '') + queue
    steps = config.get('priority_steps', '0').split(',')
    return [name if step == '0' else f'{name}{config.get("sep", SEPARATOR)}{step}' for step in steps]


class RedisReceiver(Receiver):
    """Consumes a list.

    :param config: returns the configuration of the server that tasks are sent to now.
    """

    def __init__(self, config: Callable[[], dict[str, Any]], queue: str, deliver: Callable[[str, bytes], None]) -> None:
        super().__init__(queue, deliver)
        self._config = config
        #: The thread's; a forked child must close it.
        self._client: Client | None = None

    def abandon(self) -> None:
        """In a forked child: close the parent's connection without a word."""
        if self._client is not None:
            self._client.after_fork()

    def _where(self) -> str:
        config = self._config()
        return f"redis://{config.get('unix_path') or '{host}:{port}'.format(**config)}/{config.get('db', 0)}"

    def _ring(self) -> None:
        config = self._config()
        Client(config).redis.run([['LPUSH', reply_list(config, self._queue), b'']], False, None)

    def _consume(self) -> None:
        config = self._config()
        answer = config.get('socket_timeout') or ANSWER
        # The server is silent while it waits, and that is no sign that it is dead.
        self._client = client = Client({**config, 'socket_timeout': BLOCK + answer})
        lists = _lists(config, self._queue)
        client.redis.run([['PING']], False, answer)
        self._consuming(polls=False)
        while not self._stopping and self._config() is config:
            for text in self._read(client, lists):
                if text:  # of _ring()
                    self._open(text)
        if self._stopping:
            client.redis.run([['DEL', *lists]], False, answer)

    def _read(self, client: Client, lists: list[str]) -> Iterator[bytes]:
        """Wait for a message; yield it and those behind it, oldest first."""
        main = lists[0]
        found = client.redis.run([
            ['BRPOP', *lists, BLOCK],
            ['MULTI'], ['LRANGE', main, -AT_ONCE, -1], ['LTRIM', main, 0, -AT_ONCE - 1], ['EXEC'],
        ], False, None)
        if found[0] is not None:
            yield found[0][1]
            yield from reversed(found[-1][0])

    def _open(self, text: bytes) -> None:
        try:
            envelope = json.loads(text)
            properties, body = envelope['properties'], envelope['body']
            if properties.get('body_encoding') == 'base64':
                body = base64.b64decode(body)
            task_id = properties.get('correlation_id')
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            logger.warning('A text in the reply queue %s that is no message was dropped: %s', self._queue, type(exc).__name__)
        else:
            self._take(task_id, body)
