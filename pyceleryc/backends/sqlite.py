"""Results in an SQLite file, which all processes of the host may share."""
from __future__ import annotations

from typing import Any

from pyceleryc.backends.core import CoreBackend, DocumentGroups
from pyceleryc.backends.revokes import FileRevokes
from pyceleryc.exceptions import ImproperlyConfigured

__all__ = ('SQLiteBackend',)


class SQLiteBackend(DocumentGroups, CoreBackend):
    """Documents in one file; who waits is woken by the writer, also by another process.

    :param url: ``sqlite:///relative.db`` or ``sqlite:////absolute.db``.
    """

    def client_config(self) -> dict[str, Any]:
        """Return the configuration of ``_core.Results``."""
        url = self.url or ''
        path = url.partition('://')[2].partition('?')[0]
        if not path.startswith('/') or path == '/':
            raise ImproperlyConfigured(
                f'{url!r} names no file: write sqlite:///relative.db or sqlite:////absolute.db')
        return {'scheme': 'sqlite', 'path': path[1:], 'expires': float(self.expires or 0)}

    def revoke_store(self) -> FileRevokes:
        """Return what keeps revoked ids in a file beside this one."""
        return FileRevokes(f"{self.client_config()['path']}.revoked")
