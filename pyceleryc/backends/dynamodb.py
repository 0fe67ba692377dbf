"""Results in a table of DynamoDB: ``dynamodb://key:secret@region/table?ttl_seconds=86400``."""
from __future__ import annotations

import time
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from kombu.utils.objects import cached_property

from pyceleryc.backends.aws import AWSBackend, error_code
from pyceleryc.exceptions import ChordError, ImproperlyConfigured

__all__ = ('DynamoDBBackend',)

TABLE = 'celery'


class DynamoDBBackend(AWSBackend):
    """One item for each document; chords are counted; the table is made if there is none.

    :param url: region, or ``localhost:port`` for a server of one's own; the setting
        ``dynamodb_endpoint_url`` names another. ``read`` and ``write`` are the capacities of
        a new table, ``ttl_seconds`` the time to live of items.
    """

    service = 'dynamodb'
    implements_incr = True

    def __init__(self, app: Any, url: str | None = None, **kwargs: Any) -> None:
        super().__init__(app, url=url, **kwargs)
        parts = urlsplit(url or '')
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        self._url = parts
        self.table_name = unquote(parts.path.strip('/')) or TABLE
        self.ttl_seconds = _number(query, 'ttl_seconds', 0)
        self._capacity = {'ReadCapacityUnits': _number(query, 'read', 1), 'WriteCapacityUnits': _number(query, 'write', 1)}
        self.supports_autoexpire = self.ttl_seconds > 0

    @cached_property
    def client(self) -> Any:
        """The client of boto3, when the table is there."""
        host, endpoint = self._url.hostname, self.app.conf.get('dynamodb_endpoint_url')
        if host == 'localhost':
            host, endpoint = 'us-east-1', f'http://localhost:{self._url.port or 8000}'
        key_id, secret = unquote(self._url.username or ''), unquote(self._url.password or '')
        client = self.connect(key_id, secret, host, endpoint)
        self._make_table(client)
        return client

    def _make_table(self, client: Any) -> None:
        try:
            client.describe_table(TableName=self.table_name)
            return
        except self.refusals as exc:
            if error_code(exc) != 'ResourceNotFoundException':
                raise
        try:
            client.create_table(
                TableName=self.table_name, ProvisionedThroughput=self._capacity,
                KeySchema=[{'AttributeName': 'id', 'KeyType': 'HASH'}],
                AttributeDefinitions=[{'AttributeName': 'id', 'AttributeType': 'S'}])
        except self.refusals as exc:
            if error_code(exc) != 'ResourceInUseException':  # another process makes it
                raise
        client.get_waiter('table_exists').wait(TableName=self.table_name, WaiterConfig={'Delay': 1})
        if self.ttl_seconds:
            client.update_time_to_live(
                TableName=self.table_name, TimeToLiveSpecification={'Enabled': True, 'AttributeName': 'ttl'})

    # -- items --------------------------------------------------------------------------------

    def _item(self, key: Any) -> dict[str, Any]:
        # Celery writes the key as Python shows bytes.
        return {'id': {'S': str(key.encode())}}

    def _put(self, key: Any, **fields: Any) -> None:
        now = time.time()
        item = {**self._item(key), **fields, 'timestamp': {'N': str(now)}}
        if self.ttl_seconds:
            item['ttl'] = {'N': str(int(now) + self.ttl_seconds)}
        self.reach(lambda: self.client.put_item(TableName=self.table_name, Item=item))

    def get(self, key: Any) -> bytes | None:
        """Return the value of *key*, or None."""
        answer = self.reach(lambda: self.client.get_item(
            TableName=self.table_name, Key=self._item(key), ConsistentRead=True))
        return answer['Item']['result']['B'] if 'Item' in answer else None

    def set(self, key: Any, value: Any) -> None:
        """Store *value* under *key*."""
        data = value.encode() if isinstance(value, str) else value
        self._put(key, result={'B': data})

    def delete(self, key: Any) -> None:
        """Delete *key*."""
        self.reach(lambda: self.client.delete_item(TableName=self.table_name, Key=self._item(key)))

    def prepare_count(self, group_id: str) -> None:
        """Store 0."""
        self._put(self.get_key_for_chord(group_id), chord_count={'N': '0'})

    def incr(self, key: Any) -> int:
        """Add 1 to the number under *key*; return the new number."""
        return int(self.reach(self._incr, key))

    def _incr(self, key: Any) -> Any:
        try:
            answer = self.client.update_item(
                TableName=self.table_name, Key=self._item(key), ReturnValues='UPDATED_NEW',
                UpdateExpression='SET chord_count = chord_count + :one', ExpressionAttributeValues={':one': {'N': '1'}})
        except self.refusals as exc:
            if error_code(exc) == 'ValidationException':
                raise ChordError(f'The counter {key} is gone: it has expired') from exc
            raise
        return answer['Attributes']['chord_count']['N']

    def expire(self, key: Any, value: float) -> None:
        """Items live for ``ttl_seconds``, which is written with them."""


def _number(query: dict[str, str], name: str, default: int) -> int:
    text = query.get(name, str(default))
    try:
        return int(text)
    except ValueError:
        raise ImproperlyConfigured(f'{name}={text} in the URL of DynamoDB is not a whole number') from None
