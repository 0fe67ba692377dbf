"""Keys and certificates for tests of signed messages."""
from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID


def make_signer(folder: Path, name: str, days: float = 10, password: bytes | None = None, elliptic: bool = False) -> None:
    """Writes `name`.key and `name`.pem, valid for some more `days`."""
    key = ec.generate_private_key(ec.SECP256R1()) if elliptic else rsa.generate_private_key(65537, 2048)
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Örg"), x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    cert = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    cert = cert.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=30))
    signed = cert.not_valid_after(now + datetime.timedelta(days=days)).sign(key, hashes.SHA256())
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    (folder / f"{name}.key").write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    (folder / f"{name}.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
