"""Results as messages to the program that sent the task (PROTOCOL §3.5.3, T-210..T-213)."""
from __future__ import annotations

from typing import Any

from pyceleryc.backends.core import CoreBackend
from pyceleryc.exceptions import ImproperlyConfigured

__all__ = ('RPCBackend',)

NO_GROUPS = (
    'The rpc result backend sends each result as one message to the program that asked for it, '
    'so a worker cannot read the results of other tasks: no {what}. Use another result backend, '
    'for example redis://.')


class RPCBackend(CoreBackend):
    """One reply queue for each process; results are read once, by the process that asked.

    Where the broker is ``memory://`` or ``sqlite://``, which have no reply queues, its own
    result store serves.

    :param persistent: do messages survive a restart of the broker? Default:
        ``result_persistent``, else no.
    """

    persistent = False
    wants_task_call = True

    def __init__(
        self, app: Any, connection: Any = None, exchange: Any = None, exchange_type: Any = None,
        persistent: bool | None = None, serializer: str | None = None,
        auto_delete: bool = True, **kwargs: Any,
    ) -> None:
        super().__init__(app, serializer, **kwargs)
        self.persistent = self.prepare_persistent(persistent)

    def client_config(self) -> dict[str, Any]:
        """Return the configuration of ``_core.Results``."""
        broker = self.app.amqp.core_config()
        if broker is None or broker['scheme'] == 'redis':
            raise ImproperlyConfigured(
                'result_backend "rpc://" needs an amqp://, sqlite:// or memory:// broker, and '
                f'the broker is {self.app.conf.broker_write_url!r}: set another result_backend')
        config = {'expires': float(self.expires or 0)}
        if broker['scheme'] == 'memory':
            return {**config, 'scheme': 'memory', 'hub': broker['hub']}
        if broker['scheme'] == 'sqlite':
            return {**config, 'scheme': 'sqlite', 'path': broker['vhost']}
        return {**config, 'scheme': 'rpc', 'broker': broker, 'persistent': self.persistent}

    @property
    def reply_to(self) -> str | None:
        """Name of the reply queue."""
        return self.core.reply_queue

    oid = reply_to

    def as_uri(self, include_password: bool = True) -> str:
        """Return ``rpc://``."""
        return 'rpc://'

    def ensure_chords_allowed(self) -> None:
        """Raise NotImplementedError (T-213)."""
        raise NotImplementedError(NO_GROUPS.format(what='chords'))

    def _save_group(self, group_id: str, result: Any) -> Any:
        raise NotImplementedError(NO_GROUPS.format(what='saved groups'))

    def _restore_group(self, group_id: str) -> Any:
        raise NotImplementedError(NO_GROUPS.format(what='saved groups'))

    def _delete_group(self, group_id: str) -> None:
        raise NotImplementedError(NO_GROUPS.format(what='saved groups'))
