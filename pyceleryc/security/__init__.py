"""Signed messages: the serializer ``auth`` (C-098; guide "Security", section "Message Signing").

Needs the package cryptography: ``pip install "pyceleryc[auth]"``.
"""
from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kombu.serialization import disable_insecure_serializers, registry

from pyceleryc._state import current_app
from pyceleryc.exceptions import ImproperlyConfigured
from pyceleryc.security.serialization import register_auth
from pyceleryc.security.utils import need_cryptography

__all__ = ('setup_security',)

SETTINGS_MISSING = """\
Signed messages need these settings, too, or the arguments of setup_security() of the same meaning:
    * security_key: file with the private key
    * security_certificate: file with the certificate of that key
    * security_cert_store: folder, or pattern of names, of the certificates of those who are trusted
missing: {missing}\
"""

SERIALIZERS_MISSING = """\
Messages that are signed have to be verified, and only such messages accepted. Configure both:
    * task_serializer = 'auth'
    * accept_content = ['auth']
"""


def setup_security(
    allowed_serializers: Iterable[str] | None = None, key: str | None = None,
    key_password: bytes | None = None, cert: str | None = None, store: str | None = None,
    digest: str | None = None, serializer: str = 'json', app: Any = None,
) -> None:
    """Sign what is sent, and refuse what is not signed by somebody trusted.

    It concerns the process, not only the app: the serializer ``auth`` is registered with kombu,
    and all others are disabled.

    :param allowed_serializers: names or content types that are not disabled.
    :param key: file with the private key, PEM; default: ``security_key``.
    :param key_password: of that file; default: ``security_key_password``.
    :param cert: file with the certificate, PEM; default: ``security_certificate``.
    :param store: folder or pattern of trusted certificates; default: ``security_cert_store``.
    :param digest: name of the hash function; default: ``security_digest``.
    :param serializer: what is signed is made by this one.
    :param app: default: the current app.
    :raises ImproperlyConfigured: a setting, or the package cryptography, is missing.
    :raises SecurityError: a key or certificate is not valid, or has expired.
    :raises OSError: one of the files cannot be read.
    """
    conf = (app or current_app).conf
    if conf.task_serializer != 'auth' or list(conf.accept_content or ()) != ['auth']:
        raise ImproperlyConfigured(SERIALIZERS_MISSING)
    need_cryptography()
    files = {'security_key': key or conf.security_key,
             'security_certificate': cert or conf.security_certificate,
             'security_cert_store': store or conf.security_cert_store}
    missing = [name for name, value in files.items() if not value]
    if missing:
        raise ImproperlyConfigured(SETTINGS_MISSING.format(missing=', '.join(missing)))
    with open(files['security_key'], 'rb') as file:
        key_text = file.read()
    with open(files['security_certificate'], 'rb') as file:
        cert_text = file.read()
    register_auth(
        key_text, key_password or conf.security_key_password, cert_text,
        files['security_cert_store'], digest or conf.security_digest, serializer)
    # Only now: after an error everything is as it was.
    disable_insecure_serializers(allowed=[])
    for name in ('auth', *(allowed_serializers or ())):
        registry.enable(name)
