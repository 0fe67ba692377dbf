"""Private keys, with which messages are signed."""
from __future__ import annotations

from typing import Any

from kombu.utils.encoding import ensure_bytes

from pyceleryc.exceptions import SecurityError
from pyceleryc.security.utils import need_cryptography, pss_padding, reraise_errors

__all__ = ('PrivateKey',)


class PrivateKey:
    """An RSA key.

    :param key: PEM, text or bytes.
    :param password: of an encrypted key, text or bytes.
    :raises SecurityError: it is not valid, not RSA, or the password is missing or wrong.
    """

    def __init__(self, key: str | bytes, password: str | bytes | None = None) -> None:
        need_cryptography()
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

        with reraise_errors('Invalid private key: {0!r}', errors=(ValueError, TypeError)):
            found = serialization.load_pem_private_key(
                ensure_bytes(key), None if not password else ensure_bytes(password))
        if not isinstance(found, RSAPrivateKey):
            raise SecurityError(f'Invalid private key: it is {type(found).__name__}, only RSA keys can be used')
        self._key = found

    def sign(self, data: bytes | str, digest: Any) -> bytes:
        """Return the signature of *data*; *digest* is of :func:`get_digest_algorithm`."""
        with reraise_errors('Unable to sign: {0!r}', errors=(ValueError, TypeError)):
            return self._key.sign(ensure_bytes(data), pss_padding(digest), digest)
