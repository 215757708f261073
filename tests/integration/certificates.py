"""Certificates for tests, made with openssl."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

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


def make_certificates(folder: Path) -> Certificates:
    extensions = folder / "extensions.cnf"
    extensions.write_text(_EXTENSIONS)

    def make(name: str, kind: str, issuer: Path | None = None) -> Path:
        certificate, key, both = (folder / f"{name}.{ending}" for ending in ("crt", "key", "pem"))
        signed = () if issuer is None else ("-CA", str(issuer), "-CAkey", str(issuer))
        run(
            *("openssl", "req", "-x509", "-config", str(extensions), "-extensions", kind, "-subj", f"/CN={name}"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", *signed),
            *("-keyout", str(key), "-out", str(certificate)),
        )
        both.write_text(certificate.read_text() + key.read_text())
        return both

    authority = make("authority", "authority")
    return Certificates(
        authority=authority,
        other_authority=make("other-authority", "authority"),
        server=make("server", "server", authority),
        client=make("client", "client", authority),
    )
