"""Results in a bucket of S3, or of a server with its interface: ``s3://`` and the settings ``s3_*``."""
from __future__ import annotations

from typing import Any

from kombu.utils.objects import cached_property

from pyceleryc.backends.aws import AWSBackend, error_code
from pyceleryc.exceptions import ImproperlyConfigured

__all__ = ('S3Backend',)


class S3Backend(AWSBackend):
    """One object for each document; a rule of the bucket drops old ones.

    Settings: ``s3_bucket``, ``s3_base_path`` (put before the key as it is), ``s3_region``,
    ``s3_endpoint_url``, ``s3_access_key_id``, ``s3_secret_access_key``.
    """

    service = 's3'

    def __init__(self, app: Any, **kwargs: Any) -> None:
        super().__init__(app, **kwargs)
        self.bucket_name, self.base_path = app.conf.s3_bucket, app.conf.s3_base_path or ''
        if not self.bucket_name:
            raise ImproperlyConfigured('Missing bucket name: set s3_bucket')

    @cached_property
    def client(self) -> Any:
        """The client of boto3."""
        conf = self.app.conf
        return self.connect(conf.s3_access_key_id, conf.s3_secret_access_key, conf.s3_region, conf.s3_endpoint_url)

    def _place(self, key: Any) -> dict[str, str]:
        return {'Bucket': self.bucket_name, 'Key': f'{self.base_path}{key}'}

    def get(self, key: Any) -> bytes | None:
        """Return the value of *key*, or None."""
        return self.reach(self._get, key)

    def _get(self, key: Any) -> Any:
        try:
            return self.client.get_object(**self._place(key))['Body'].read()
        except self.refusals as exc:
            if error_code(exc) == 'NoSuchKey':
                return None
            raise

    def set(self, key: Any, value: Any) -> None:
        """Store *value* under *key*."""
        self.reach(lambda: self.client.put_object(**self._place(key), Body=value))

    def delete(self, key: Any) -> None:
        """Delete *key*."""
        self.reach(lambda: self.client.delete_object(**self._place(key)))
