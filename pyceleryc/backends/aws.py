"""What the stores of Amazon's services have in common: the library boto3 and its errors."""
from __future__ import annotations

from typing import Any

from pyceleryc.backends.remote import RemoteStore, require

__all__ = ('AWSBackend',)

#: Seconds, and tries of the library itself.
LIMITS = {'connect_timeout': 5, 'read_timeout': 30, 'retries': {'max_attempts': 2}}
THROTTLED = frozenset({'ProvisionedThroughputExceededException', 'ThrottlingException', 'RequestLimitExceeded', 'SlowDown'})


class AWSBackend(RemoteStore):
    """A store behind boto3; where no keys are given, boto3 finds them in its own way."""

    thread_safe = True
    #: Name of the service, and of the extra of this package.
    service = ''

    def __init__(self, app: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(app, *args, **kwargs)
        self._boto3 = require('boto3', self.service, f'The result store {self.service}://')
        errors = require('botocore.exceptions', self.service, f'The result store {self.service}://')
        self.unreachable = (errors.HTTPClientError, errors.EndpointConnectionError)
        self.refusals = (errors.ClientError, errors.BotoCoreError)

    def connect(self, key_id: Any, secret: Any, region: Any, endpoint: Any) -> Any:
        """Return a client of the service; threads may share it."""
        session = self._boto3.session.Session(
            aws_access_key_id=key_id or None, aws_secret_access_key=secret or None, region_name=region or None)
        config = require('botocore.config', self.service, 'boto3').Config(**LIMITS)
        return session.client(self.service, endpoint_url=endpoint or None, config=config)

    def is_unreachable(self, exc: BaseException) -> bool:
        """Tell whether *exc* is an error of the connection, of the server, or says that it is busy."""
        answer = getattr(exc, 'response', None) or {}
        status = (answer.get('ResponseMetadata') or {}).get('HTTPStatusCode') or 0
        return super().is_unreachable(exc) or status >= 500 or error_code(exc) in THROTTLED


def error_code(exc: BaseException) -> str:
    """Return the name of an error in an answer of the service."""
    answer = getattr(exc, 'response', None) or {}
    return str((answer.get('Error') or {}).get('Code') or '')
