"""The section of the MQTT server."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, StrictBool, model_validator

from wgkex_ops.config.fields import Host, Integer, ReadableFile
from wgkex_ops.config.section import Section


class TlsConfig(Section):
    """TLS towards the MQTT server; each file is PEM and can be read at the time of loading.

    Attributes:
        ca_file: certificates to trust instead of the system's.
        cert_file: our certificate, for servers that ask for one, perhaps with the key in the same file.
        key_file: the key of ``cert_file``.
        verify: check the server's certificate and name.
    """

    ca_file: ReadableFile | None = None
    cert_file: ReadableFile | None = None
    key_file: ReadableFile | None = None
    verify: StrictBool = True

    @model_validator(mode="after")
    def _key_needs_certificate(self) -> Self:
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("has a key_file without a cert_file; the server asks for both or none")
        return self


def _tls(value: object) -> object:
    """Take true, false or a mapping; also 1 and 0, as the older wgkex did.

    To it any text was true, ``"false"`` too: such text is refused.
    """
    match value.lower() if isinstance(value, str) else value:
        case True | "1" | "true":
            return TlsConfig()
        case False | "0":
            return None
        case str():
            raise ValueError("should be true, false or a mapping")
    return value


class MqttConfig(Section):
    """The MQTT server.

    Attributes:
        username: None to send none.
        password: None to send none; its representation is asterisks.
        keepalive: seconds without traffic after which a side asks whether the other one is alive; 0 never asks.
        tls: None for plain TCP.
        version: of the protocol, as its standards are called.
        session_expiry: seconds for which the server keeps what arrives for an absent worker; 0 keeps nothing,
            4,294,967,295 keeps it for ever.
    """

    host: Host = Field(alias="broker_url")
    port: Integer = Field(default=1883, alias="broker_port", ge=1, le=65_535)
    username: str | None = None
    password: SecretStr | None = None
    keepalive: Integer = Field(default=5, ge=0, le=65_535)  # two bytes on the wire: MQTT 5, section 3.1.2.10
    tls: Annotated[TlsConfig | None, BeforeValidator(_tls)] = None
    version: Literal["5", "3.1.1"] = "5"
    session_expiry: Integer = Field(default=3600, ge=0, le=0xFFFF_FFFF)  # four bytes on the wire: section 3.1.2.11.2


class MqttUser(Section):
    """A user of the MQTT server for one role, in the place of that of ``mqtt``.

    Attributes:
        username: None where there is none.
        password: None to send none; its representation is asterisks.
    """

    username: str | None = None
    password: SecretStr | None = None

    @model_validator(mode="after")
    def _password_needs_user(self) -> Self:
        if self.password is not None and self.username is None:
            raise ValueError("has a password without a username")
        return self
