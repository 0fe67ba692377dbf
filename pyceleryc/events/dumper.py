"""``pyceleryc events --dump``: prints events as they come."""
from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, TextIO

from kombu.utils.functional import LRUCache

from pyceleryc.app import app_or_default

__all__ = ('Dumper', 'evdump')

#: Names are only in the first event of a task.
NAMES_KEPT = 4095
HUMAN_TYPES = {'worker-offline': 'shutdown', 'worker-online': 'started', 'worker-heartbeat': 'heartbeat'}
CONNECTION_ERROR = '-> Cannot connect to %s: %s.\nTrying again %s'


def humanize_type(type: str) -> str:  # noqa: A002
    """Return an event type as people say it."""
    return HUMAN_TYPES.get(type, type.replace('-', ' '))


class Dumper:
    """Prints events to *out*."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self.out = out
        self._names: Any = LRUCache(NAMES_KEPT)

    def say(self, msg: str) -> None:
        """Print a line at once."""
        print(msg, file=self.out, flush=True)

    def on_event(self, ev: Mapping[str, Any]) -> None:
        """Print an event; a program's own may lack what those of workers have."""
        fields = dict(ev)
        when = fields.pop('timestamp', None) or fields.get('local_received') or 0
        timestamp = datetime.fromtimestamp(when, timezone.utc).replace(tzinfo=None)
        type_, hostname = fields.pop('type').lower(), fields.pop('hostname', None)
        if type_.startswith('task-'):
            self.format_task_event(hostname, timestamp, type_, self._task(type_, fields), fields)
            return
        shown = ', '.join(f'{key}={fields[key]}' for key in sorted(fields))
        self.say(f'{hostname} [{timestamp}] {humanize_type(type_)}{": " if shown else ""}{shown}')

    def _task(self, type_: str, fields: dict[str, Any]) -> str:
        uuid = fields.pop('uuid', None)
        if type_ in ('task-received', 'task-sent'):
            shown = (f'{fields.pop("name", None)}({uuid}) args={fields.pop("args", None)} '
                     f'kwargs={fields.pop("kwargs", None)}')
            self._names[uuid] = shown
            return shown
        return str(self._names.get(uuid, uuid))

    def format_task_event(
        self, hostname: str, timestamp: Any, type: str, task: str, event: Mapping[str, Any],  # noqa: A002
    ) -> None:
        """Print an event about a task."""
        shown = ', '.join(f'{key}={event[key]}' for key in sorted(event))
        self.say(f'{hostname} [{timestamp}] {humanize_type(type)}: {task} {shown}'.rstrip())


def evdump(app: Any = None, out: TextIO = sys.stdout) -> None:
    """Print events until interrupted; a lost connection is made again."""
    app = app_or_default(app)
    dumper = Dumper(out=out)
    dumper.say('-> evdump: starting capture...')
    connection = app.connection_for_read().clone()

    def on_error(exc: BaseException, interval: float) -> None:
        dumper.say(CONNECTION_ERROR % (connection.as_uri(), exc, f'in {interval} seconds...'))

    while True:
        try:
            connection.ensure_connection(on_error)
            receiver = app.events.Receiver(connection, handlers={'*': dumper.on_event})
            receiver.capture()
        except (KeyboardInterrupt, SystemExit):
            connection.close()
            return
        except connection.connection_errors + connection.channel_errors:
            dumper.say('-> Connection lost, attempting reconnect')
