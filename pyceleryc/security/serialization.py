"""The serializer ``auth``: what another serializer makes, signed (PROTOCOL: content type application/data)."""
from __future__ import annotations

import base64
from typing import Any

from kombu.serialization import dumps, loads, registry
from kombu.utils.encoding import bytes_to_str, ensure_bytes

from pyceleryc.exceptions import ImproperlyConfigured, SecurityError
from pyceleryc.security.certificate import Certificate, FSCertStore
from pyceleryc.security.key import PrivateKey
from pyceleryc.security.utils import get_digest_algorithm, reraise_errors

__all__ = ('SecureSerializer', 'register_auth')

#: Between the parts of a message; those before the body are base64 or plain names.
SEP = b'\x00\x01'
_PARTS = ('signer', 'signature', 'content_type', 'content_encoding', 'body')


class SecureSerializer:
    """Signs with *key*, and verifies with the certificates of *cert_store*.

    :param cert: certificate of *key*; messages carry its id.
    :param digest: name of the hash function; both sides need the same.
    :param serializer: makes what is signed.
    """

    def __init__(
        self, key: Any = None, cert: Any = None, cert_store: Any = None, digest: str = 'sha256',
        serializer: str = 'json',
    ) -> None:
        self._key = key
        self._cert = cert
        self._cert_store = cert_store
        self._digest = get_digest_algorithm(digest)
        self._serializer = serializer

    def serialize(self, data: Any) -> str:
        """Return *data* serialized and signed.

        :raises SecurityError: it cannot be serialized or signed.
        """
        if self._key is None or self._cert is None:
            raise ImproperlyConfigured('To sign messages a key and its certificate are needed')
        with reraise_errors('Unable to serialize: {0!r}'):
            content_type, content_encoding, body = dumps(data, serializer=self._serializer)
            body = ensure_bytes(body)
            return self._pack(
                body, content_type, content_encoding, self._cert.get_id(),
                self._key.sign(body, self._digest))

    def deserialize(self, data: str | bytes) -> Any:
        """Return what was signed.

        :raises SecurityError: it is malformed, its signer is unknown or expired, the signature is
            wrong, or the body cannot be decoded.
        """
        if self._cert_store is None:
            raise ImproperlyConfigured('To verify messages a store of certificates is needed')
        with reraise_errors('Unable to deserialize: {0!r}'):
            parts = self._unpack(data)
            signer = self._cert_store[parts['signer']]
            if signer.has_expired():
                raise SecurityError(f'Expired certificate: {signer.get_id()!r}')
            signer.verify(parts['body'], parts['signature'], self._digest)
            # It is trusted now, although its serializer may be disabled for all others.
            return loads(
                parts['body'], parts['content_type'], parts['content_encoding'], force=True)

    def _pack(
        self, body: bytes, content_type: str, content_encoding: str, signer: str | bytes,
        signature: bytes, sep: bytes = SEP,
    ) -> str:
        fields = (base64.b64encode(ensure_bytes(signer)), base64.b64encode(signature),
                  ensure_bytes(content_type), ensure_bytes(content_encoding), body)
        return bytes_to_str(base64.b64encode(sep.join(fields)))

    def _unpack(self, payload: str | bytes, sep: bytes = SEP) -> dict[str, Any]:
        fields = base64.b64decode(ensure_bytes(payload)).split(sep, len(_PARTS) - 1)
        if len(fields) < len(_PARTS):
            raise SecurityError(f'the message has {len(fields)} parts instead of {len(_PARTS)}')
        parts: dict[str, Any] = dict(zip(_PARTS, fields, strict=True))
        for name in ('signer', 'signature'):
            parts[name] = base64.b64decode(parts[name])
        for name in ('content_type', 'content_encoding'):
            parts[name] = bytes_to_str(parts[name])
        return parts


def register_auth(
    key: str | bytes | None = None, key_password: str | bytes | None = None,
    cert: str | bytes | None = None, store: str | None = None, digest: str = 'sha256',
    serializer: str = 'json',
) -> None:
    """Register the serializer ``auth`` with kombu.

    :param key: private key, PEM; *key_password* decrypts it.
    :param cert: its certificate, PEM.
    :param store: folder or pattern of trusted certificates.
    :raises SecurityError: one of them is not valid, or has expired.
    """
    signer = SecureSerializer(
        key and PrivateKey(key, password=key_password), cert and Certificate(cert),
        store and FSCertStore(store), digest, serializer)
    registry.register(
        'auth', signer.serialize, signer.deserialize, content_type='application/data',
        content_encoding='utf-8')
