"""Results in this process's memory (``cache+memory://`` or ``memory://``) or in memcached."""
from __future__ import annotations

from typing import Any

from pyceleryc import _state
from pyceleryc.backends.core import CoreBackend, DocumentGroups
from pyceleryc.backends.memcached import SCHEMES, MemcachedBackend
from pyceleryc.exceptions import ImproperlyConfigured

__all__ = ('CacheBackend',)


class CacheBackend(DocumentGroups, CoreBackend):
    """Documents in the hub that all ``memory://`` users of the process share.

    :param url: ``cache+memory://``; without it the setting ``cache_backend`` says which.
        For ``memcached://`` the object is a :class:`MemcachedBackend`.
    """

    def __new__(cls, app: Any, *args: Any, **kwargs: Any) -> Any:
        """Make the object; result_backend="cache" leaves it to the settings what it is."""
        name = kwargs.get('backend') or kwargs.get('url') or app.conf.cache_backend or ''
        if cls is CacheBackend and _kind(name) in SCHEMES:
            return MemcachedBackend(app, *args, **kwargs)
        return super().__new__(cls)

    def __init__(
        self, app: Any, expires: Any = None, backend: str | None = None, url: str | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault('expires_type', int)
        super().__init__(app, expires=expires, url=url, **kwargs)
        kind = _kind(backend or url or app.conf.cache_backend or '')
        if kind not in ('memory', 'cache'):
            raise ImproperlyConfigured(
                f'Unknown cache backend: {kind or "none"}. Use cache+memory://, '
                'cache+memcached://host/, or another result backend such as redis://.')

    def client_config(self) -> dict[str, Any]:
        """Return the configuration of ``_core.Results``."""
        return {'scheme': 'memory', 'hub': _state.get_memory_hub(),
                'expires': float(self.expires or 0)}

    def as_uri(self, include_password: bool = False) -> str:
        """Return ``cache+memory://``."""
        return 'cache+memory://'


def _kind(name: str) -> str:
    return name.removeprefix('cache+').partition('://')[0]
