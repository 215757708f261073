"""The file's layout, and what the programs get: frozen sections, each setting with its type, bounds and default.

An alias is the older wgkex's name of a setting. Where the programs want another shape than the file has, a section has
a property.
"""

import socket
from collections.abc import Mapping
from functools import cache, cached_property
from ipaddress import ip_network
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from pydantic import ConfigDict, Field, PrivateAttr, StrictBool, ValidationInfo, field_validator

from wgkex_ops.config.fields import (
    DomainNames,
    Host,
    Integer,
    Key,
    Location,
    LoggingLevel,
    LogLevel,
    Name,
    Network,
    Number,
    Port,
    Url,
)
from wgkex_ops.config.limits import MAX_PEERS, LimitsConfig
from wgkex_ops.config.mqtt import MqttConfig, MqttUser
from wgkex_ops.config.section import FileContext, Listen, Section, paths_in
from wgkex_ops.config.tls import ServerTls
from wgkex_ops.model.domains import Domain, parse_domain

# --- sections


class BrokerListen(Listen):
    """Where nodes are served.

    Attributes:
        tls: None for plain HTTP.
        reuse_port: whether several brokers of this host listen there, and share the connections.
    """

    port: Port = 5000
    tls: ServerTls | None = None
    reuse_port: StrictBool = False


class MetricsListen(Listen):
    """Where /metrics and the operator's other paths are served, and to whom.

    Attributes:
        allowed_hosts: further names that requests may be for.
        web_config_file: TLS and users; None for neither. `load_web_config` reads it.
    """

    allowed_hosts: tuple[Host, ...] = ()
    web_config_file: Path | None = None


class _BrokerMetricsListen(MetricsListen):
    port: Port = 9690


class _WorkerMetricsListen(MetricsListen):
    port: Port = 9691


class _ProbeMetricsListen(MetricsListen):
    port: Port = 9692


class ListedWorker(Section):
    """A gateway: its share of the nodes is its weight divided by the sum of all weights.

    Attributes:
        location: where it is, in lower case, for nodes that ask for a gateway there; None if that is not said.
    """

    weight: Number = Field(default=1, ge=0, le=1_000_000)  # far from where sums of floats overflow
    location: Location | None = None


class _RootLogger(Section):
    model_config = ConfigDict(extra="ignore")

    level: LoggingLevel = "info"


class LoggingConfig(Section):
    """A ``logging.config.dictConfig`` of the older wgkex, of which only the root's level has a use here."""

    model_config = ConfigDict(extra="ignore")

    root: _RootLogger = _RootLogger()


# RFC 1122, RFC 1918, RFC 4291, RFC 4193. The shared space of carriers (RFC 6598) is not private to the operators.
_LOOPBACK_AND_PRIVATE: Final = tuple(
    ip_network(text) for text in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")
)


class BrokerConfig(MqttUser):
    """What only the broker needs, and the older wgkex had no setting for.

    Attributes:
        name: this broker's name in MQTT topics.
        metrics_listen: where /metrics and the operator's other paths are served.
        publish_timeout: seconds to wait for the MQTT server's acknowledgement.
        confirm_timeout: seconds that version 2 waits for gateways to install a key; 0 waits for none.
        shutdown_delay: seconds of "not ready" before the end.
        trusted_proxies: load balancers, whose `X-Forwarded-For` names the client.
        workers_only_listed: whether workers that are not listed under ``workers`` are ignored.
        location_tolerance: how far a gateway of the location that a node names may be from the balance, as a share.
    """

    name: Name = Field(default_factory=socket.gethostname, validate_default=True)
    metrics_listen: _BrokerMetricsListen = _BrokerMetricsListen()
    publish_timeout: Number = Field(default=3, gt=0, le=30)  # nodes have given up long before
    confirm_timeout: Number = Field(default=0.75, ge=0, le=10)  # a node needs its key within that
    shutdown_delay: Number = Field(default=0, ge=0, le=300)  # a load balancer checks many times in that
    trusted_proxies: tuple[Network, ...] = _LOOPBACK_AND_PRIVATE
    workers_only_listed: StrictBool = False
    location_tolerance: Number = Field(default=0.1, ge=0, le=10)  # 10 is eleven times as many


class WorkerConfig(MqttUser):
    """What only the worker needs, and the older wgkex had no setting for.

    Attributes:
        name: this worker's name in MQTT topics and under ``workers``.
        metrics_listen: where /metrics and the operator's other paths are served.
        dataplane: ``memory`` installs nothing, for trying out.
        state_dir: where the worker remembers its peers; whether it can is known only when it runs.
        route_protocol: marks routes as ours; values below 5 have a meaning to the kernel (linux/rtnetlink.h).
        max_peers: of a domain; beyond that, peers that never connected make room for new ones.
    """

    name: Name = Field(default_factory=socket.gethostname, validate_default=True)
    metrics_listen: _WorkerMetricsListen = _WorkerMetricsListen()
    dataplane: Literal["kernel", "memory"] = "kernel"
    state_dir: Path = Path("/var/lib/wgkex")
    route_protocol: Integer = Field(default=158, ge=5, le=255)
    max_peers: Integer = Field(default=MAX_PEERS, ge=1, le=1_000_000)


class CleanupConfig(Section):
    """Which peers the worker removes, and when.

    Attributes:
        interval: seconds between runs, on average.
        stale_after: a peer is removed when its last handshake is older than so many seconds.
        never_after: one without any handshake is removed so many seconds after it was last requested.
        adopt: whether peers of the older wgkex are taken over.
        protected_keys: whose peers are never removed, nor taken over.
    """

    interval: Number = Field(default=600, ge=10, le=3600)  # three of them are missed before an alert fires
    # A live peer has a handshake every two minutes, and may miss some. The journal forgets a peer after a week.
    stale_after: Number = Field(default=10_800, ge=600, le=7 * 86_400)
    never_after: Number = Field(default=600, ge=60, le=86_400)  # a node asks again after a minute
    adopt: StrictBool = False
    protected_keys: tuple[Key, ...] = ()


class MetricsConfig(Section):
    """What the worker shows besides the aggregates.

    Attributes:
        per_peer: whether single peers have series of their own.
        per_peer_limit: how many peers of a domain get them.
        peer_names: a file with friendly names, which may be missing or change at any time; None for none.
    """

    per_peer: StrictBool = False
    per_peer_limit: Integer = Field(default=2000, ge=0, le=100_000)
    peer_names: Path | None = None


class ProbeConfig(MqttUser):
    """The canary.

    Attributes:
        url: of the broker, without a path of ours; None for that of ``broker_listen``.
        interval: seconds from the begin of a round to that of the next one.
        metrics_listen: where /metrics and the operator's other paths are served.
        keys: the folder with its keys; None for ``probe`` in ``worker.state_dir``.
    """

    url: Url | None = None
    interval: Number = Field(default=60, ge=10, le=3600)  # a round that fails late takes 45 s
    metrics_listen: _ProbeMetricsListen = _ProbeMetricsListen()
    keys: Path | None = None


class OperatorConfig(MqttUser):
    """The operators' user on the MQTT server, for commands that ask all gateways and brokers."""


class Config(Section):
    """The whole file.

    Attributes:
        domain_prefixes: the first one that fits is cut off a domain's name, to name its interfaces. They come before
            the names, which are checked against them.
        listed_workers: by name; a worker that is not listed weighs 1.
        external_name: the name or address that nodes reach this worker by; None for the worker's name.
        broker_listen: where nodes are served.
        limits: how much of the broker a client may use.
        key_lists: the file of the key lists, which `load_key_lists` reads; None for none.
        own_log_level: wins over ``logging_config``.
    """

    domain_prefixes: tuple[str, ...]
    domain_names: DomainNames = Field(alias="domains")
    listed_workers: Mapping[Name, ListedWorker] = Field(default={}, alias="workers")
    external_name: Host | None = Field(default=None, alias="externalName")
    mqtt: MqttConfig
    broker_listen: BrokerListen = BrokerListen()
    logging_config: LoggingConfig = LoggingConfig()
    own_log_level: LoggingLevel | None = Field(default=None, alias="log_level")
    # Validated when absent, too: not every host's name can be a name in topics.
    broker: BrokerConfig = Field(default={}, validate_default=True)
    worker: WorkerConfig = Field(default={}, validate_default=True)
    limits: LimitsConfig = LimitsConfig()
    key_lists: Path | None = None
    cleanup: CleanupConfig = CleanupConfig()
    metrics: MetricsConfig = MetricsConfig()
    probe: ProbeConfig = ProbeConfig()
    operator: OperatorConfig = OperatorConfig()

    _ignored_keys: tuple[str, ...] = PrivateAttr(default=())
    _cut_secrets: tuple[str, ...] = PrivateAttr(default=())

    def model_post_init(self, context: object) -> None:
        """Remember what the file has, and no setting says."""
        if isinstance(context, FileContext):
            self._ignored_keys = context.ignored_keys
            self._cut_secrets = context.cut_secrets

    @property
    def ignored_keys(self) -> tuple[str, ...]:
        """The keys of the older wgkex that the file has, and that have no effect; see `older`."""
        return self._ignored_keys

    @property
    def cut_secrets(self) -> tuple[str, ...]:
        """The passwords, each with its line, that YAML may have cut: what follows begins with ``#``, and no space."""
        return self._cut_secrets

    @field_validator("broker")
    @classmethod
    def _serves_somebody(cls, broker: BrokerConfig, info: ValidationInfo) -> BrokerConfig:
        if broker.workers_only_listed and info.data.get("listed_workers") == {}:
            raise ValueError("has workers_only_listed, and no workers are listed: nodes would get no gateway")
        return broker

    @cached_property
    def domains(self) -> tuple[Domain, ...]:
        """In the file's order, no two with the same interfaces."""
        return tuple(parse_domain(name, self.domain_prefixes) for name in self.domain_names)

    @cached_property
    def workers(self) -> Mapping[str, float]:
        """The weights of the listed workers."""
        return MappingProxyType({name: worker.weight for name, worker in self.listed_workers.items()})

    @cached_property
    def locations(self) -> Mapping[str, str]:
        """The locations of the listed workers that have one, in lower case."""
        found = {name: worker.location for name, worker in self.listed_workers.items() if worker.location is not None}
        return MappingProxyType(found)

    @property
    def probe_url(self) -> str:
        """Where the canary finds the broker, without a slash at the end."""
        if self.probe.url is not None:
            return self.probe.url
        scheme = "https" if self.broker_listen.tls is not None else "http"
        return f"{scheme}://{self.broker_listen.on_this_host}"

    @property
    def probe_keys(self) -> Path:
        """Where the canary keeps its keys."""
        return self.probe.keys or self.worker.state_dir / "probe"

    def mqtt_of(self, section: str) -> MqttConfig:
        """The MQTT server, with the user of a section (broker, worker, probe or operator) if that has one."""
        user: MqttUser = getattr(self, section)
        if user.username is None:
            return self.mqtt
        return self.mqtt.model_copy(update={"username": user.username, "password": user.password})

    @property
    def log_level(self) -> LogLevel:
        """The lowest level that is logged."""
        return self.own_log_level or self.logging_config.root.level


# --- keys


@cache
def settings(section: type[Section] = Config) -> tuple[str, ...]:
    """Every key that the file may have, as dotted paths; ``*`` stands for the name of a worker."""
    return tuple(paths_in(section, ""))
