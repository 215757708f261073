"""The MQTT server: reachable, trusted, logged in; and what its access rules permit.

With `use_username_as_clientid`, which the shipped Mosquitto configuration has, a second connection with a user ends the
first one, and a clean one throws away the keys that wait for it. So while a process runs and is connected, all is told
by its metrics; and else the first connection is one that lets a session live.
"""

import asyncio
import contextlib
import os
import re
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry

from wgkex_ops.bus.client import Connection
from wgkex_ops.bus.messages import WORKER_EVENTS, key_subscription, key_topic, receipt_topic, receipt_topic_of
from wgkex_ops.bus.values import ConnectionFailedError, Message
from wgkex_ops.config import Config
from wgkex_ops.doctor.findings import Finding, critical, ok, warning
from wgkex_ops.doctor.process import BROKER, Presence, Process
from wgkex_ops.errors import BusError, NoSubscribersError, PublishRefusedError
from wgkex_ops.metrics.mqtt import MqttMetrics

# Seconds; there may be two connections.
_CONNECT_TIMEOUT: Final = 3.0
_PUBLISH_TIMEOUT: Final = 2.0
# What is kept of an unknown session until it is known whether it is ours; see `_examine`.
_SHORTEST_SESSION: Final = 60

# A level of topics that no domain, broker or worker has.
_NOBODY: Final = "wgkex-doctor"
_BAD_LOGIN: Final = re.compile(r"code (4|5|134|135) ")
_BAD_VERSION: Final = re.compile(r"code (1|132) ")


@dataclass(slots=True)
class _Seen:
    """What a connection of ours has found.

    Attributes:
        topics: of the messages that came.
        kept: whether the server had a session for us: its client ids are the users.
        expiry: until when its certificate is valid, in seconds since the epoch; None without TLS.
        refused: subscriptions that it refused.
        write: what became of a message that nobody reads; None if it was accepted.
    """

    topics: list[str] = field(default_factory=list)
    kept: bool = False
    expiry: float | None = None
    refused: Sequence[str] = ()
    write: BusError | TimeoutError | None = None


async def check_bus(config: Config, process: Process, *, in_use: bool) -> tuple[list[Finding], float | None]:
    """Check the MQTT server for a role.

    Args:
        config: the configuration.
        process: the role's.
        in_use: whether another process of this host may be connected with the same user.

    Returns:
        what was found, and until when the server's certificate is valid (seconds since the epoch; None if there is
        none, or it is not known).
    """
    server = f"{config.mqtt.host}:{config.mqtt.port}"
    if process.presence is Presence.OURS and process.metrics.get("wgkex_mqtt_connected") == 1:
        expiry = process.metrics.get("wgkex_mqtt_certificate_expiry_timestamp_seconds")
        told = _told_by_broker if process.role == BROKER else _told_by_worker
        return [ok("mqtt", f"the {process.role} is connected with {server}"), *told(config, process)], expiry
    if in_use or (process.runs and process.presence is not Presence.OURS):
        text = f"not tried: a process of this host may be connected with {server}, and that would end its session"
        return [warning("mqtt", text, "look at its own page, or stop it (systemctl stop) and run this again")], None
    try:
        seen = await _examine(config, process.role, only_login=process.runs)
    except ConnectionFailedError as failure:
        return [explain_failure(config, failure)], None
    if process.runs:
        text = f"{server} accepts the login of the configuration file, and the running {process.role} is not connected"
        remedy = f"if the file has changed since its start: systemctl restart wgkex-{process.role}; else run this again"
        return [critical("mqtt", text, remedy)], seen.expiry
    findings = [ok("mqtt", f"{server} accepts the login{f' of {user}' if (user := config.mqtt.username) else ''}")]
    return [*findings, _write(config, process.role, seen), _read(config, process.role, seen)], seen.expiry


def explain_failure(config: Config, failure: ConnectionFailedError) -> Finding:
    """A failed attempt to connect, with the setting that may be its cause."""
    mqtt, detail = config.mqtt, _readable(str(failure))
    server = f"{mqtt.host}:{mqtt.port}"
    match failure.reason:
        case "refused" if _BAD_LOGIN.search(detail):
            text = f"{server} refuses the login of {mqtt.username or 'nobody'}: {detail}"
            remedy = "correct mqtt.username and mqtt.password, or set the user's password with mosquitto_passwd"
        case "refused" if _BAD_VERSION.search(detail):
            text, remedy = f"{server} does not know MQTT {mqtt.version}", 'set mqtt.version to "3.1.1"'
        case "tls" if "expired" in detail:
            text = f"the certificate of {server} has expired"
            remedy = "renew it on the MQTT server, and reload that; if it is new, look at the clock of this host"
        case "tls" if "not yet valid" in detail:
            text, remedy = (
                f"the certificate of {server} is not valid yet",
                "set the clock of this host, or of the server",
            )
        case "tls" if "match" in detail:
            text = f"the certificate of {server} is for another name: {_reason(detail)}"
            remedy = "set mqtt.broker_url to a name that the certificate has, or add this name to the certificate"
        case "tls" if "certificate verify failed" in detail:
            text = f"the certificate of {server} is not trusted: {_reason(detail)}"
            remedy = "set mqtt.tls.ca_file to the authority's certificate"
        case "tls":
            text = f"no TLS with {server}: {detail}"
            remedy = "check the files of mqtt.tls, and that mqtt.broker_port is the server's port for TLS"
        case "unreachable" if mqtt.tls is not None and "reset" in detail:
            text = f"{server} ends the connection during TLS: {detail}"
            remedy = "is mqtt.broker_port the server's port for TLS? Does it want a certificate (mqtt.tls.cert_file)?"
        case "unreachable":
            text = f"{server} cannot be reached: {detail}"
            remedy = "check mqtt.broker_url and mqtt.broker_port, that Mosquitto runs, and firewalls"
        case _:
            text = f"{server}: {detail}"
            remedy = "check mqtt.broker_port, mqtt.tls (does it want TLS?) and mqtt.version; its log says more"
    return critical("mqtt", text, remedy)


def _readable(detail: str) -> str:
    """An error of the system in its words, and without what asyncio adds."""
    match = re.match(r"\[Errno (\d+)\]", detail)
    return os.strerror(int(match[1])) if match else detail


def _reason(detail: str) -> str:
    """What OpenSSL says after `certificate verify failed:`, without the place in its source."""
    return re.sub(r" \(_ssl\.c:\d+\)$", "", detail.partition("certificate verify failed: ")[2] or detail)


# --- what the running process knows


def _told_by_worker(config: Config, process: Process) -> list[Finding]:
    name, user, metrics = config.worker.name, config.mqtt.username or "everybody", process.metrics
    if any("announced" in problem for problem in process.problems):
        text = f"the MQTT server does not take what this gateway announces as {name}"
        remedy = f"wgkex.acl must let {user} write wireguard-worker/{name}/#: user and worker.name must be the same"
        write = critical("mqtt_write", text, remedy)
    elif metrics.total("wgkex_worker_receipt_failures_total") and not metrics.total("wgkex_worker_receipts_total"):
        text = "no receipt could be sent since the start: brokers take this gateway for silent"
        write = critical("mqtt_write", text, f"wgkex.acl must let {user} write wgkex/receipts/+/{name}")
    else:
        write = ok("mqtt_write", "what the worker announces was accepted")
    received = metrics.total("wgkex_worker_messages_received_total")
    read = ok("mqtt_read", f"{received:.0f} keys have arrived since the start") if received else _no_key(config)
    return [write, read]


def _told_by_broker(config: Config, process: Process) -> list[Finding]:
    user, metrics = config.mqtt.username or "everybody", process.metrics
    published = metrics.total("wgkex_broker_keys_published_total")
    refused = metrics.get("wgkex_broker_key_failures_total", reason="publish_refused") or 0
    if refused:
        text = f"the MQTT server has refused {refused:.0f} keys since the start, and taken {published:.0f}"
        remedy = f"wgkex.acl must let {user} write wireguard/+/+; after a change, systemctl reload mosquitto"
        write = (warning if published else critical)("mqtt_write", text, remedy)
    elif published:
        write = ok("mqtt_write", f"{published:.0f} keys were accepted since the start")
    else:
        text = "no key was published since the start, so whether the access rules let keys through is not known"
        write = warning("mqtt_write", text, "submit one: wgkex-ops register DOMAIN KEY")
    if any(metrics.by("wgkex_broker_worker_last_seen_timestamp_seconds", "worker").values()):
        return [write, ok("mqtt_read", "what gateways publish arrives")]
    return [write, _no_gateway(config)]


# --- what a connection of our own finds


def _write(config: Config, role: str, seen: _Seen) -> Finding:
    user = config.mqtt.username or "everybody"
    topic = "wireguard/+/+" if role == BROKER else f"wgkex/receipts/+/{config.worker.name}"
    match seen.write:
        case PublishRefusedError():
            text = f"the access rules forbid {user} to write {topic}"
            setting = "mqtt.username must be broker.name" if role == BROKER else "mqtt.username must be worker.name"
            return critical(
                "mqtt_write", text, f"correct wgkex.acl on the MQTT server; with the shipped one, {setting}"
            )
        case None if config.mqtt.version == "5":
            return ok("mqtt_write", f"{user} may write {topic}; its other topics are tried by a running {role} only")
        case None:
            text = "by MQTT 3.1.1 the server does not say whether it has refused a message"
            return warning("mqtt_write", text, 'set mqtt.version to "5", if the server knows it')
    text = f"the MQTT server does not acknowledge a message: {str(seen.write) or 'none in time'}"
    return critical("mqtt_write", text, "look at its log, and at its load and disk")


def _read(config: Config, role: str, seen: _Seen) -> Finding:
    user = config.mqtt.username or "everybody"
    if seen.refused:
        text = f"the access rules forbid {user} to read {', '.join(seen.refused)}"
        return critical("mqtt_read", text, "correct wgkex.acl on the MQTT server, then systemctl reload mosquitto")
    if role == BROKER:
        # Its own status comes, too.
        known = any(topic.startswith(("wireguard-worker/", "wireguard-metrics/")) for topic in seen.topics)
        return ok("mqtt_read", "what gateways publish arrives") if known else _no_gateway(config)
    keys = sum(topic.startswith("wireguard/") for topic in seen.topics)
    return ok("mqtt_read", f"keys arrive: {keys} were waiting for this gateway") if keys else _no_key(config)


def _no_key(config: Config) -> Finding:
    # Mosquitto grants each subscription, and then drops what may not be read.
    text = "no key has arrived yet: whether the access rules let any through is not provable here"
    user = config.mqtt.username or "everybody"
    remedy = f"wgkex-ops register DOMAIN KEY, then run this again; wgkex.acl must let {user} read wireguard/+/all"
    return warning("mqtt_read", text, remedy)


def _no_gateway(config: Config) -> Finding:
    text = "nothing has arrived from any gateway: none has ever announced itself, or the access rules forbid to read it"
    user = config.mqtt.username or "everybody"
    return warning("mqtt_read", text, f"wgkex.acl must let {user} read wireguard-worker/# and wireguard-metrics/#")


async def _examine(config: Config, role: str, *, only_login: bool) -> _Seen:
    """Connect, and find out what the role may do, without a change for anybody.

    Raises:
        ConnectionFailedError: there is no connection.
    """
    seen, client_id = _Seen(), f"{_NOBODY}-{secrets.token_hex(4)}"
    # If the user is the client id, this is the session of the role: it goes on for as long as the role wants.
    expiry = max(config.mqtt.session_expiry, _SHORTEST_SESSION) if role != BROKER else _SHORTEST_SESSION
    subscriptions = [key_subscription(name) for name in config.domain_names]
    if role == BROKER:
        subscriptions = [*WORKER_EVENTS, f"{receipt_topic(config.broker.name)}/+"]
    async with _connected(config, client_id, seen, expiry) as connection:
        seen.kept = connection.session_present
        if seen.kept and not only_login:
            # With the subscriptions that it has.
            await _publish(config, role, connection, seen)
    if seen.kept:
        return seen
    # This one also ends the session that the first one has begun.
    async with _connected(config, client_id, seen, 0, () if only_login else subscriptions) as connection:
        if not only_login:
            await _publish(config, role, connection, seen)
    return seen


@contextlib.asynccontextmanager
async def _connected(
    config: Config, client_id: str, seen: _Seen, expiry: int, subscriptions: Sequence[str] = ()
) -> AsyncIterator[Connection]:
    def deliver(message: Message) -> None:
        # Not acknowledged, so that it waits on.
        seen.topics.append(message.topic)

    registry = CollectorRegistry()
    connection = Connection(
        config.mqtt,
        client_id=client_id,
        will=None,
        session_expiry=expiry,
        deliver=deliver,
        metrics=MqttMetrics(registry),
    )
    try:
        seen.refused = await connection.open((), subscriptions, _CONNECT_TIMEOUT)
        seen.expiry = registry.get_sample_value("wgkex_mqtt_certificate_expiry_timestamp_seconds")
        yield connection
    finally:
        await connection.close()


async def _publish(config: Config, role: str, connection: Connection, seen: _Seen) -> None:
    """Publish what nobody reads. What the server has kept for our subscriptions comes before its acknowledgement."""
    if role == BROKER:
        topic = key_topic(_NOBODY, _NOBODY)
    else:
        topic = receipt_topic_of(config.worker.name, receipt_topic(_NOBODY))
    deadline = asyncio.get_running_loop().time() + _PUBLISH_TIMEOUT
    try:
        await connection.publish(
            topic,
            b"",
            retain=False,
            properties=None,
            response_topic="",
            correlation=b"",
            expires_after=0,
            deadline=deadline,
        )
    except NoSubscribersError:
        pass
    except (BusError, TimeoutError) as error:
        seen.write = error
