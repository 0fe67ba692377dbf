"""What the serializer ``auth`` needs of the package cryptography, which is imported at first use."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyceleryc.exceptions import ImproperlyConfigured, SecurityError

__all__ = ('get_digest_algorithm', 'need_cryptography', 'reraise_errors')


def need_cryptography() -> None:
    """Raise ImproperlyConfigured if the package cryptography is missing."""
    try:
        import cryptography  # noqa: F401  only whether it is there
    except ImportError as exc:
        raise ImproperlyConfigured(
            'Signed messages (serializer auth) need the package cryptography: '
            'pip install "pyceleryc[auth]"') from exc


def get_digest_algorithm(digest: str = 'sha256') -> Any:
    """Return the hash function called *digest*, of the package cryptography.

    :raises SecurityError: there is none of that name.
    """
    need_cryptography()
    from cryptography.hazmat.primitives import hashes

    found = getattr(hashes, str(digest).upper(), None)
    if not (isinstance(found, type) and issubclass(found, hashes.HashAlgorithm)):
        raise SecurityError(f'Unknown digest {digest!r}: security_digest takes sha256, sha384, sha512, …')
    try:
        return found()
    except TypeError as exc:
        raise SecurityError(f'The digest {digest!r} cannot be used: {exc}') from exc


@contextmanager
def reraise_errors(msg: str = '{0!r}', errors: Any = Exception) -> Iterator[None]:
    """Make a SecurityError of any of *errors*; *msg* is formatted with the original one."""
    try:
        yield
    except errors as exc:
        raise SecurityError(msg.format(exc)) from exc


def pss_padding(digest: Any) -> Any:
    """Return the padding of signatures: PSS with MGF1 and the longest salt."""
    from cryptography.hazmat.primitives.asymmetric import padding

    return padding.PSS(mgf=padding.MGF1(digest), salt_length=padding.PSS.MAX_LENGTH)
