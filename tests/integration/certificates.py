"""Certificates for tests, made with openssl."""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.integration.loopback import run

# What strict checking wants (RFC 5280, section 4.2), and nothing of the system's openssl.cnf.
_EXTENSIONS: Final = """
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[server]
subjectAltName = IP:127.0.0.1
authorityKeyIdentifier = keyid
extendedKeyUsage = serverAuth
[client]
authorityKeyIdentifier = keyid
extendedKeyUsage = clientAuth
"""


@dataclass(frozen=True)
class Certificates:
    """PEM files; the key of a certificate is in the same file."""

    authority: Path
    other_authority: Path
    server: Path
    client: Path

    def renew_server(self, file: Path, days: int) -> None:
        """Write another certificate for the server into a file, valid for some days from now."""
        made = _make(self.authority.parent, f"renewed-{days}", "server", self.authority, days)
        file.write_text(made.read_text())

    def expired_server(self, file: Path) -> None:
        """Write a certificate for the server that was valid until yesterday; not every openssl makes one."""
        authority = x509.load_pem_x509_certificate(self.authority.read_bytes())
        authority_key = serialization.load_pem_private_key(self.authority.read_bytes(), None)
        assert isinstance(authority_key, ec.EllipticCurvePrivateKey)
        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
        names = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))])
        certificate = (
            x509.CertificateBuilder(authority.subject, x509.Name([]), key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(days=3))
            .not_valid_after(now - timedelta(days=1))
            .add_extension(names, critical=True)
            .sign(authority_key, hashes.SHA256())
        )
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + pem)


def make_certificates(folder: Path) -> Certificates:
    (folder / "extensions.cnf").write_text(_EXTENSIONS)
    authority = _make(folder, "authority", "authority")
    return Certificates(
        authority=authority,
        other_authority=_make(folder, "other-authority", "authority"),
        server=_make(folder, "server", "server", authority),
        client=_make(folder, "client", "client", authority),
    )


def valid_until(certificate: Path) -> float:
    """Seconds since the epoch, as openssl shows it."""
    shown = run("openssl", "x509", "-in", str(certificate), "-noout", "-enddate")
    return ssl.cert_time_to_seconds(shown.strip().removeprefix("notAfter="))


def _make(folder: Path, name: str, kind: str, issuer: Path | None = None, days: int = 2) -> Path:
    certificate, key, both = (folder / f"{name}.{ending}" for ending in ("crt", "key", "pem"))
    signed = () if issuer is None else ("-CA", str(issuer), "-CAkey", str(issuer))
    run(
        *("openssl", "req", "-x509", "-config", str(folder / "extensions.cnf"), "-extensions", kind),
        *("-subj", f"/CN={name}", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
        *("-days", str(days), *signed, "-keyout", str(key), "-out", str(certificate)),
    )
    both.write_text(certificate.read_text() + key.read_text())
    return both
