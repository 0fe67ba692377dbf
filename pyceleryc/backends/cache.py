"""Results in this process's memory: ``cache+memory://`` or ``memory://``."""
from __future__ import annotations

from typing import Any

from pyceleryc import _state
from pyceleryc.backends.core import CoreBackend, DocumentGroups
from pyceleryc.exceptions import ImproperlyConfigured

__all__ = ('CacheBackend',)


class CacheBackend(DocumentGroups, CoreBackend):
    """Documents in the hub that all ``memory://`` users of the process share.

    :param url: ``cache+memory://``; without it the setting ``cache_backend`` says which.
    """

    def __init__(
        self, app: Any, expires: Any = None, backend: str | None = None, url: str | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault('expires_type', int)
        super().__init__(app, expires=expires, url=url, **kwargs)
        name = (backend or url or app.conf.cache_backend or '').removeprefix('cache+')
        kind = name.partition('://')[0]
        if kind not in ('memory', 'cache'):
            raise ImproperlyConfigured(
                f'Unknown cache backend: {kind or "none"}. Use cache+memory://, or another '
                'result backend such as redis:// or sqlite:///results.db.')

    def client_config(self) -> dict[str, Any]:
        """Return the configuration of ``_core.Results``."""
        return {'scheme': 'memory', 'hub': _state.get_memory_hub(),
                'expires': float(self.expires or 0)}

    def as_uri(self, include_password: bool = False) -> str:
        """Return ``cache+memory://``."""
        return 'cache+memory://'
