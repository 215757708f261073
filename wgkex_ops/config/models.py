"""What the programs get: frozen, checked, with names of our own (a validation_alias is the file's older word)."""

import socket
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StrictBool,
    model_validator,
)
from pydantic.fields import FieldInfo

from wgkex_ops.config.problems import show
from wgkex_ops.config.values import (
    CleanupInterval,
    ConfirmTimeout,
    DirectoryPath,
    FilePath,
    Host,
    Keepalive,
    ListedKey,
    ListenPort,
    LogLevel,
    Name,
    NeverAfter,
    Password,
    PerPeerLimit,
    ProtocolVersion,
    PublishTimeout,
    ReadableFile,
    RouteProtocol,
    ServerPort,
    SessionExpiry,
    ShutdownDelay,
    StaleAfter,
    Username,
)
from wgkex_ops.model.domains import Domain


def _host_name() -> str:
    return socket.gethostname()


class Section(BaseModel, frozen=True):
    """A mapping of the file. Type checkers want `frozen` repeated by each class below."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, validate_by_name=True, validate_by_alias=True)

    @classmethod
    def fields_by_key(cls) -> dict[str, FieldInfo]:
        """Give the fields the names that they have in the file."""
        return {
            info.validation_alias if isinstance(info.validation_alias, str) else name: info
            for name, info in cls.model_fields.items()
        }

    @model_validator(mode="before")
    @classmethod
    def _empty_is_absent(cls, data: object) -> object:
        if data is None:
            return {}
        if not isinstance(data, Mapping):
            return data
        known = cls.fields_by_key()
        return {key: value for key, value in data.items() if value is not None or key not in known}


class Listen(Section, frozen=True):
    """Where to listen for TCP connections.

    Attributes:
        host: an address, or a name that has one; ``0.0.0.0`` and ``::`` are all addresses.
        port: 1 to 65535; 0 lets the kernel choose a free port, which tests need.
    """

    host: Host = "127.0.0.1"
    port: ListenPort

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def with_default_port(default_port: int) -> BeforeValidator:
    """Listeners share one model but for the port, which has another default at each place."""

    def fill(value: object) -> object:
        if isinstance(value, Mapping):
            return {"port": default_port} | {key: item for key, item in value.items() if item is not None}
        return value

    return BeforeValidator(fill)


class TlsConfig(Section, frozen=True):
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
    """Take ``true``, ``false``, 0, 1 or a mapping.

    The old tool took every text that is not empty for true, ``"false"`` too: what cannot be meant is refused.
    """
    match value:
        case TlsConfig() | Mapping():
            return value
        case True | 1:
            return TlsConfig()
        case False | 0 | "":
            return None
        case str() if value.lower() == "true":
            return TlsConfig()
    raise ValueError(f"should be true, false or a mapping, not {show(value)}")


class MqttConfig(Section, frozen=True):
    """The MQTT server.

    Attributes:
        host: its name or address.
        port: its TCP port.
        username: None to send none.
        password: never printed: its representation is asterisks.
        keepalive: seconds without traffic after which a side asks whether the other one is alive; 0 never asks.
        tls: None for plain TCP.
        version: of the protocol, in the words of its standards.
        session_expiry: seconds for which the server keeps what comes for a worker that is away; 0 keeps nothing,
            4,294,967,295 for ever.
    """

    host: Host = Field(validation_alias="broker_url")
    port: ServerPort = Field(default=1883, validation_alias="broker_port")
    username: Username = None
    password: Password = None
    keepalive: Keepalive = 5
    tls: Annotated[TlsConfig | None, BeforeValidator(_tls)] = None
    version: ProtocolVersion = "5"
    session_expiry: SessionExpiry = 3600


class BrokerSection(Section, frozen=True):
    """``broker`` in the file: what the old tool had no place for."""

    name: Name = Field(default_factory=_host_name, validate_default=True)
    metrics_listen: Annotated[Listen, with_default_port(9690)] = Listen(port=9690)
    publish_timeout: PublishTimeout = 3.0
    confirm_timeout: ConfirmTimeout = 0.75
    shutdown_delay: ShutdownDelay = 0


class BrokerConfig(BrokerSection, frozen=True):
    """What only the broker needs.

    Attributes:
        name: this broker's name in MQTT topics; the host's name by default.
        metrics_listen: where /metrics and the operator's other paths are served.
        publish_timeout: seconds to wait for the MQTT server's acknowledgement; more than 0, at most 30.
        confirm_timeout: seconds that version 2 waits for gateways to install a key; 0 to 10, 0 waits for none.
        shutdown_delay: seconds of "not ready" before the end; 0 to 300.
        listen: where nodes are served (``broker_listen`` in the file).
    """

    listen: Listen = Listen(port=5000)


class WorkerConfig(Section, frozen=True):
    """What only the worker needs.

    Attributes:
        name: this worker's name in MQTT topics and under ``workers``; the host's name by default.
        metrics_listen: where /metrics and the operator's other paths are served.
        dataplane: ``memory`` installs nothing, for trying out.
        state_dir: where the worker remembers its peers; whether it can is known only when it runs.
        route_protocol: marks routes as ours; values below 5 have a meaning to the kernel (linux/rtnetlink.h).
    """

    name: Name = Field(default_factory=_host_name, validate_default=True)
    metrics_listen: Annotated[Listen, with_default_port(9691)] = Listen(port=9691)
    dataplane: Literal["kernel", "memory"] = "kernel"
    state_dir: DirectoryPath = Path("/var/lib/wgkex")
    route_protocol: RouteProtocol = 158


class CleanupConfig(Section, frozen=True):
    """Which peers the worker removes, and when.

    Attributes:
        interval: seconds between runs, on average; 10 to 3600.
        stale_after: a peer goes when its last handshake is older than so many seconds; 600 to 604,800.
        never_after: one without any handshake goes so many seconds after it was last asked for; 60 to 86,400.
        adopt: whether peers of the older wgkex are taken over.
        protected_keys: whose peers are never removed, nor taken over.
    """

    interval: CleanupInterval = 600
    stale_after: StaleAfter = 10_800
    never_after: NeverAfter = 600
    adopt: StrictBool = False
    protected_keys: tuple[ListedKey, ...] = ()


class MetricsConfig(Section, frozen=True):
    """What the worker shows besides the aggregates.

    Attributes:
        per_peer: whether single peers have series of their own.
        per_peer_limit: how many peers of a domain get them; 0 to 100,000.
        peer_names: a file with friendly names, which may be missing or change at any time; None for none.
    """

    per_peer: StrictBool = False
    per_peer_limit: PerPeerLimit = 2000
    peer_names: FilePath | None = None


class Config(Section, frozen=True):
    """Everything, checked.

    Attributes:
        domains: in the file's order, no two with the same interfaces.
        mqtt: the MQTT server.
        workers: weight by worker's name, of the listed ones only; whoever is not listed weighs 1.
        external_name: the name that nodes reach this worker by; None for the host's name.
        broker: what only the broker needs.
        worker: what only the worker needs.
        cleanup: which peers the worker removes.
        metrics: what the worker shows besides the aggregates.
        log_level: the lowest level that is logged.
    """

    domains: tuple[Domain, ...]
    mqtt: MqttConfig
    workers: Annotated[Mapping[str, int | float], AfterValidator(MappingProxyType), PlainSerializer(dict)] = Field(
        default_factory=lambda: MappingProxyType({})
    )
    external_name: str | None = None
    broker: BrokerConfig = Field(default_factory=BrokerConfig)
    worker: WorkerConfig = Field(default_factory=WorkerConfig)
    cleanup: CleanupConfig = CleanupConfig()
    metrics: MetricsConfig = MetricsConfig()
    log_level: LogLevel = "info"
