"""Results in Azure Blob Storage: ``azureblockblob://<connection string>``."""
from __future__ import annotations

from typing import Any

from kombu.utils.objects import cached_property

from pyceleryc.app.utils import hide_secrets_of_connection
from pyceleryc.backends.remote import RemoteStore, require
from pyceleryc.exceptions import ImproperlyConfigured

__all__ = ('AzureBlockBlobBackend',)

WHAT = 'The result store azureblockblob://'
BAD_URL = ('azureblockblob:// needs the connection string of a storage account: '
           'azureblockblob://DefaultEndpointsProtocol=https;AccountName=…;AccountKey=…')


class AzureBlockBlobBackend(RemoteStore):
    """One blob for each document; a rule of the account drops old ones.

    The container is made if there is none.  Settings: ``azureblockblob_container_name``,
    ``azureblockblob_base_path`` (put before the key as it is), and those for retries and timeouts.
    """

    thread_safe = True

    def __init__(self, app: Any, url: str | None = None, **kwargs: Any) -> None:
        super().__init__(app, url=url, **kwargs)
        self._connection_string = (url or '').removeprefix('azureblockblob://')
        if '=' not in self._connection_string.partition(';')[0] or '://' in self._connection_string.partition('=')[0]:
            raise ImproperlyConfigured(BAD_URL)
        self._library = require('azure.storage.blob', 'azureblockblob', WHAT)
        errors = require('azure.core.exceptions', 'azureblockblob', WHAT)
        self.unreachable = (errors.ServiceRequestError, errors.ServiceResponseError)
        self.refusals = (errors.AzureError,)
        self._exists = errors.ResourceExistsError
        self.base_path = app.conf.azureblockblob_base_path or ''

    def as_uri(self, include_password: bool = False) -> str:
        """Return the URL, without the key unless that is asked for."""
        url = self.url or ''
        return url if include_password else hide_secrets_of_connection(url)

    @cached_property
    def container(self) -> Any:
        """The client of the container, which is there."""
        conf = self.app.conf
        retries = self._library.ExponentialRetry(
            initial_backoff=conf.azureblockblob_retry_initial_backoff_sec,
            increment_base=conf.azureblockblob_retry_increment_base,
            retry_total=conf.azureblockblob_retry_max_attempts)
        try:
            service = self._library.BlobServiceClient.from_connection_string(
                self._connection_string, retry_policy=retries, connection_timeout=conf.azureblockblob_connection_timeout,
                read_timeout=conf.azureblockblob_read_timeout)
        except ValueError as exc:
            raise ImproperlyConfigured(f'{BAD_URL} ({exc})') from exc
        container = service.get_container_client(conf.azureblockblob_container_name)
        try:
            container.create_container()
        except self._exists:
            return container
        return container

    def is_unreachable(self, exc: BaseException) -> bool:
        """Tell whether *exc* is an error of the connection or of the server."""
        return super().is_unreachable(exc) or (getattr(exc, 'status_code', None) or 0) >= 500

    def get(self, key: Any) -> bytes | None:
        """Return the value of *key*, or None."""
        return self.reach(self._get, key)

    def _get(self, key: Any) -> Any:
        try:
            return self.container.download_blob(f'{self.base_path}{key}').readall()
        except self.refusals as exc:
            if getattr(exc, 'error_code', None) == 'BlobNotFound':
                return None
            raise

    def set(self, key: Any, value: Any) -> None:
        """Store *value* under *key*."""
        self.reach(lambda: self.container.upload_blob(f'{self.base_path}{key}', value, overwrite=True))

    def delete(self, key: Any) -> None:
        """Delete *key*."""
        self.reach(self._delete, key)

    def _delete(self, key: Any) -> None:
        try:
            self.container.delete_blob(f'{self.base_path}{key}')
        except self.refusals as exc:
            if getattr(exc, 'error_code', None) != 'BlobNotFound':
                raise
