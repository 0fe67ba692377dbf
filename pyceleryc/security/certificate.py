"""Certificates of those whose messages are accepted."""
from __future__ import annotations

import datetime
import glob
import os
from collections.abc import Iterator
from typing import Any

from kombu.utils.encoding import bytes_to_str, ensure_bytes

from pyceleryc.exceptions import SecurityError
from pyceleryc.security.utils import need_cryptography, pss_padding, reraise_errors

__all__ = ('CertStore', 'Certificate', 'FSCertStore')


class Certificate:
    """An X.509 certificate of an RSA key.

    :param cert: PEM, text or bytes.
    :raises SecurityError: it is not valid, or of another kind of key.
    """

    def __init__(self, cert: str | bytes) -> None:
        need_cryptography()
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
        from cryptography.x509 import load_pem_x509_certificate

        with reraise_errors('Invalid certificate: {0!r}', errors=(ValueError, TypeError)):
            self._cert = load_pem_x509_certificate(ensure_bytes(cert))
            key = self._cert.public_key()
        if not isinstance(key, RSAPublicKey):
            raise SecurityError(f'Invalid certificate: its key is {type(key).__name__}, only RSA keys can be used')
        self._public_key = key

    def has_expired(self) -> bool:
        """Tell whether its last day is over."""
        now = datetime.datetime.now(datetime.timezone.utc)
        try:
            return now >= self._cert.not_valid_after_utc
        except AttributeError:
            # cryptography before 42
            return now.replace(tzinfo=None) >= self._cert.not_valid_after

    def get_pubkey(self) -> Any:
        """Return the public key."""
        return self._public_key

    def get_serial_number(self) -> int:
        """Return its number, unique among those of the issuer."""
        return self._cert.serial_number

    def get_issuer(self) -> str:
        """Return the parts of the issuer's name, separated by spaces."""
        return ' '.join(bytes_to_str(part.value) for part in self._cert.issuer)

    def get_id(self) -> str:
        """Return what messages name it by: issuer and number."""
        return f'{self.get_issuer()} {self.get_serial_number()}'

    def verify(self, data: bytes | str, signature: bytes, digest: Any) -> None:
        """Return if *signature* is that of *data*, made with the key of this certificate.

        :raises SecurityError: it is not.
        """
        from cryptography.exceptions import InvalidSignature

        with reraise_errors('Bad signature: {0!r}', errors=(InvalidSignature, ValueError, TypeError)):
            self._public_key.verify(signature, ensure_bytes(data), pss_padding(digest), digest)


class CertStore:
    """The certificates of those who are trusted, by their ids."""

    def __init__(self) -> None:
        self._certs: dict[str, Certificate] = {}

    def itercerts(self) -> Iterator[Certificate]:
        """Yield all of them."""
        yield from self._certs.values()

    def __getitem__(self, id: str | bytes) -> Certificate:  # noqa: A002  the public name
        """Return the certificate of that id; SecurityError if there is none."""
        try:
            return self._certs[bytes_to_str(id)]
        except KeyError:
            raise SecurityError(f'Unknown certificate: {id!r}') from None

    def add_cert(self, cert: Certificate) -> None:
        """Trust *cert*; SecurityError if there is one of that id."""
        name = cert.get_id()
        if name in self._certs:
            raise SecurityError(f'Duplicate certificate: {name!r}')
        self._certs[name] = cert


class FSCertStore(CertStore):
    """Certificates that are files.

    :param path: a folder, of which all files are taken, or a pattern such as ``/etc/certs/*.pem``.
    :raises SecurityError: one of them is not valid, has expired, or is there twice.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        pattern = os.path.join(path, '*') if os.path.isdir(path) else path
        for name in filter(os.path.isfile, sorted(glob.glob(pattern))):
            with open(name, 'rb') as file:
                text = file.read()
            with reraise_errors(f'{name}: {{0}}', errors=SecurityError):
                cert = Certificate(text)
                if cert.has_expired():
                    raise SecurityError(f'Expired certificate: {cert.get_id()!r}')
                self.add_cert(cert)
