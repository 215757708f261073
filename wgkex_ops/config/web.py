"""The web configuration file: TLS and users of the operators' listener, in the format of Prometheus' own exporters.

https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md. Its keys that are missing here are
unknown keys like any other.
"""

import re
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from wgkex_ops.config.fields import readable
from wgkex_ops.config.loader import load_as
from wgkex_ops.config.section import FileContext, Section
from wgkex_ops.config.tls import server_context
from wgkex_ops.errors import ConfigError

_CLIENT_CHECKS: Final = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_VERSIONS: Final = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_BCRYPT: Final = re.compile(r"\$2[aby]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}", re.ASCII)
_PRINTABLE: Final = re.compile(r"[ -~]+")


def _beside(path: Path, info: ValidationInfo) -> Path:
    """Let a relative path start at the folder of the web configuration file."""
    folder = info.context.folder if isinstance(info.context, FileContext) else None
    return path if folder is None else readable(folder / path)


def _bcrypt_hash(value: str) -> str:
    if _BCRYPT.fullmatch(value):
        return value
    # Not shown: it may be the password itself.
    raise ValueError("should be a bcrypt hash, as `htpasswd -nBC 10 NAME` prints it behind the colon")


def _header_value(value: str) -> str:
    if _PRINTABLE.fullmatch(value):
        return value
    raise ValueError("should be printable ASCII")


_File = Annotated[Path, AfterValidator(_beside)]
_Version = Literal["TLS12", "TLS13"]
_Header = Literal[
    "Content-Security-Policy",
    "Strict-Transport-Security",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "X-XSS-Protection",
]


class _TlsServerConfig(Section):
    cert_file: _File
    key_file: _File
    client_auth_type: Literal["NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"] = "NoClientCert"
    client_ca_file: _File | None = None
    min_version: _Version = "TLS12"
    max_version: _Version = "TLS13"

    @model_validator(mode="after")
    def _settings_fit(self) -> Self:
        if self.min_version > self.max_version:
            raise ValueError("has a min_version above max_version")
        if (self.client_auth_type == "NoClientCert") != (self.client_ca_file is None):
            raise ValueError("needs both or none of client_ca_file and a client_auth_type that verifies certificates")
        return self


class _HttpServerConfig(Section):
    http2: Literal[False] = False
    headers: Mapping[_Header, Annotated[str, AfterValidator(_header_value)]] = {}


class WebConfig(Section):
    """The whole file.

    Attributes:
        tls_server_config: None for plain HTTP.
        http_server_config: further headers of each response.
        basic_auth_users: bcrypt hashes by user; without users, nobody needs a password.
    """

    tls_server_config: _TlsServerConfig | None = None
    http_server_config: _HttpServerConfig = _HttpServerConfig()
    basic_auth_users: Mapping[str, Annotated[str, AfterValidator(_bcrypt_hash)]] = Field(default={}, repr=False)

    @property
    def files(self) -> Sequence[Path]:
        """The files that it names."""
        tls = self.tls_server_config
        return [path for path in (tls.cert_file, tls.key_file, tls.client_ca_file) if path] if tls else []

    def ssl_context(self, source: Path) -> ssl.SSLContext | None:
        """Read the certificates.

        Args:
            source: where this was read, for the message of an error.

        Returns:
            the context; None for plain HTTP.

        Raises:
            ConfigError: they cannot be used.
        """
        tls = self.tls_server_config
        if tls is None:
            return None
        try:
            context = server_context(tls.cert_file, tls.key_file)
            context.minimum_version, context.maximum_version = _VERSIONS[tls.min_version], _VERSIONS[tls.max_version]
            context.verify_mode = _CLIENT_CHECKS[tls.client_auth_type]
            if tls.client_ca_file is not None:
                context.load_verify_locations(tls.client_ca_file)
        except (OSError, ValueError) as error:  # SSLError is an OSError
            raise ConfigError([f"{source}: tls_server_config: its files cannot be used: {error}"]) from error
        return context


def load_web_config(path: Path) -> WebConfig:
    """Read a web configuration file, without the certificates.

    Raises:
        ConfigError: it cannot be read, or has problems.
    """
    return load_as(WebConfig, path)
