"""Good files: what each setting may be, and what the programs get."""

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.helpers import KEY, WELT
from tests.unit.config.samples import MINIMAL, OLD, problems
from wgkex_ops.config import Config, Listen, TlsConfig, load, parse
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.model.peers import ROUTE_PROTOCOL


def parse_with(lines: str) -> Config:
    """Parse the smallest file and some more lines; indented ones belong to `mqtt`."""
    return parse(MINIMAL + lines, "f")


def test_file_of_the_old_tool() -> None:
    config = load(OLD)
    assert config.domains == (
        Domain(name="ffexa_altstadt", wg="wg-altstadt", vx="vx-altstadt"),
        Domain(name="ffexa_hafen", wg="wg-hafen", vx="vx-hafen"),
        Domain(name="ffdorf_ring", wg="wg-ring", vx="vx-ring"),
    )
    assert config.workers == {"gw01.in.example.org": 40, "gw02.in.example.org": 20, "gw03.in.example.org": 1}
    assert config.external_name == "gw01.ext.example.org"
    assert (config.mqtt.host, config.mqtt.port, config.mqtt.keepalive) == ("mqtt.example.org", 1884, 10)
    assert config.mqtt.username == "gateway"
    assert config.mqtt.password is not None
    assert config.mqtt.password.get_secret_value() == "not-a-secret"
    assert config.mqtt.tls is None
    assert str(config.broker_listen) == "0.0.0.0:5001"
    assert config.log_level == "debug"


def test_smallest_file() -> None:
    """What the programs get by default; the reference has the default of each setting."""
    config = parse(MINIMAL, "f")
    assert config.domains == (WELT,)
    assert config.workers == {}
    assert config.external_name is None
    assert (config.mqtt.host, config.mqtt.port) == ("mqtt.example.net", 1883)
    assert (config.mqtt.username, config.mqtt.password, config.mqtt.tls) == (None, None, None)
    assert str(config.broker_listen) == "127.0.0.1:5000"
    assert str(config.broker.metrics_listen) == "127.0.0.1:9690"
    assert str(config.worker.metrics_listen) == "127.0.0.1:9691"
    assert config.worker.state_dir == Path("/var/lib/wgkex")
    assert config.worker.route_protocol == ROUTE_PROTOCOL
    assert str(config.probe.metrics_listen) == "127.0.0.1:9692"
    assert config.probe_url == "http://127.0.0.1:5000"
    assert config.probe_keys == Path("/var/lib/wgkex/probe")
    assert config.log_level == "info"


@pytest.mark.parametrize("empty", ["", "~", "''"])
@pytest.mark.parametrize(
    "lines",
    [
        "workers: {e}",
        "externalName: {e}",
        "broker_listen: {{host: {e}, port: {e}}}",
        "logging_config: {e}\nlog_level: {e}",
        "logging_config: {{root: {e}}}",
        "logging_config: {{root: {{level: {e}}}}}",
        "broker: {{name: {e}, metrics_listen: {e}, publish_timeout: {e}, confirm_timeout: {e}}}",
        "worker:\n  metrics_listen: {{host: {e}}}\n  state_dir: {e}",
        "cleanup: {e}\nmetrics:\n  peer_names: {e}",
        "probe: {{url: {e}, interval: {e}, keys: {e}, metrics_listen: {e}}}",
        "  broker_port: {e}\n  username: {e}\n  password: {e}\n  keepalive: {e}",
        "  tls: {e}\n  version: {e}\n  session_expiry: {e}",
    ],
)
def test_empty_is_the_same_as_absent(lines: str, empty: str) -> None:
    assert parse_with(lines.format(e=empty)) == parse(MINIMAL, "f")


# --- the settings one by one


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("broker_listen: {host: '::'}", "[::]:5000"),
        ("broker_listen: {port: 80}", "127.0.0.1:80"),
        ("broker_listen: {host: 0.0.0.0, port: 0}", "0.0.0.0:0"),
        ("broker_listen: {host: 'fe80::1%eth0', port: '0'}", "[fe80::1%eth0]:0"),
        ("broker_listen: {host: localhost, port: 80.0}", "localhost:80"),
    ],
)
def test_listeners_are_shown_as_urls_have_them(lines: str, expected: str) -> None:
    assert str(parse_with(lines).broker_listen) == expected


def test_each_listener_has_its_default_port() -> None:
    config = parse_with("broker: {metrics_listen: {host: '::1'}}\nworker: {metrics_listen: {host: '::2'}}")
    assert str(config.broker.metrics_listen) == "[::1]:9690"
    assert str(config.worker.metrics_listen) == "[::2]:9691"


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("0.0.0.0", "127.0.0.1:7"),
        ("::", "[::1]:7"),
        ("192.0.2.1", "192.0.2.1:7"),
        ("2001:db8::1", "[2001:db8::1]:7"),
    ],
)
def test_what_listens_everywhere_is_found_on_loopback(host: str, found: str) -> None:
    assert str(Listen(host=host, port=7).on_this_host) == found


@pytest.mark.parametrize(
    ("lines", "url"),
    [
        ("broker_listen: {host: 0.0.0.0, port: 80}", "http://127.0.0.1:80"),
        ("broker_listen: {host: '::'}", "http://[::1]:5000"),
        ("broker_listen: {host: broker.example.net}", "http://broker.example.net:5000"),
        ("broker_listen: {port: 80}\nprobe: {url: 'https://broker.example.net/'}", "https://broker.example.net"),
        ("probe: {url: 'http://[2001:db8::1]:8080/wgkex//'}", "http://[2001:db8::1]:8080/wgkex"),
    ],
)
def test_the_canary_finds_the_broker_of_this_host_or_another_one(lines: str, url: str) -> None:
    assert parse_with(lines).probe_url == url


def test_the_canary_keeps_its_keys_beside_the_workers_journal_or_elsewhere() -> None:
    assert parse_with("worker: {state_dir: /state}").probe_keys == Path("/state/probe")
    assert parse_with("worker: {state_dir: /state}\nprobe: {keys: /keys}").probe_keys == Path("/keys")


@pytest.mark.parametrize(
    ("lines", "level"),
    [
        ("log_level: WARNING", "warning"),
        ("log_level: Warn", "warning"),
        ("log_level: fatal", "critical"),
        ("log_level: 10", "debug"),
        ("log_level: 15", "info"),
        ("log_level: 99", "critical"),
        ("log_level: NOTSET", "debug"),
        ("log_level: error\nlogging_config: {root: {level: DEBUG}}", "error"),
        ("logging_config: {version: 1, root: {level: ERROR, handlers: [a]}, loggers: {x: {level: DEBUG}}}", "error"),
        ("logging_config: {version: 1, root: {handlers: [a]}}", "info"),
    ],
)
def test_log_level(lines: str, level: str) -> None:
    assert parse_with(lines).log_level == level


@pytest.mark.parametrize(
    ("weight", "number"),
    [("30", 30), ("'30'", 30), ("' 30 '", 30), ("0", 0), ("0.5", 0.5), ("'0.5'", 0.5), ("2.0", 2), ("1e3", 1000)],
)
def test_weight(weight: str, number: float) -> None:
    config = parse_with(f"workers:\n  gw01.example.net:\n    weight: {weight}\n")
    assert config.workers == {"gw01.example.net": number}


@pytest.mark.parametrize("entry", ["", "{}", "{weight: }", "{weight: ''}"])
def test_listed_without_a_weight(entry: str) -> None:
    assert parse_with(f"workers:\n  42: {entry}\n").workers == {"42": 1}


def test_locations_are_those_of_the_gateways_that_have_one() -> None:
    config = parse_with(
        "workers: {gw01: {location: Munich-2}, gw02: {weight: 3, location: 089}, gw03: {location:}, gw04:}"
    )
    assert config.locations == {"gw01": "munich-2", "gw02": "089"}
    assert config.workers == {"gw01": 1, "gw02": 3, "gw03": 1, "gw04": 1}
    assert parse(MINIMAL, "f").locations == {}
    assert parse(MINIMAL, "f").broker.location_tolerance == 0.1


@pytest.mark.parametrize("value", ["true", "True", "yes", "1", "'true'", "{}"])
def test_tls(value: str) -> None:
    assert parse_with(f"  tls: {value}\n").mqtt.tls == TlsConfig()


@pytest.mark.parametrize("value", ["false", "no", "0"])
def test_no_tls(value: str) -> None:
    assert parse_with(f"  tls: {value}\n").mqtt.tls is None


def test_tls_without_verification() -> None:
    assert parse_with("  tls: {verify: false}\n").mqtt.tls == TlsConfig(verify=False)


def test_tls_files(tmp_path: Path) -> None:
    ca, cert, key = (tmp_path / name for name in ("ca.pem", "client.pem", "client.key"))
    for file in (ca, cert, key):
        file.touch()
    tls = parse_with(f"  tls: {{ca_file: {ca}, cert_file: {cert}, key_file: {key}}}\n").mqtt.tls
    assert tls == TlsConfig(ca_file=ca, cert_file=cert, key_file=key)
    # The key may be in the same file.
    assert parse_with(f"  tls: {{cert_file: {cert}}}\n").mqtt.tls == TlsConfig(cert_file=cert)


@pytest.mark.parametrize(("version", "expected"), [("5", "5"), ("'5'", "5"), ("3.1.1", "3.1.1")])
def test_mqtt_version(version: str, expected: str) -> None:
    assert parse_with(f"  version: {version}\n").mqtt.version == expected


@pytest.mark.parametrize("written", ["0123", "1e5", "0x10", "1_000", "12:30:45", "2024-13-99", ".inf", "="])
def test_text_stays_as_it_is_written(written: str) -> None:
    """YAML would make a number or a date of it."""
    mqtt = parse_with(f"  username: {written}\n  password: {written}\n").mqtt
    assert mqtt.username == written
    assert mqtt.password is not None
    assert mqtt.password.get_secret_value() == written


def test_a_role_may_have_a_user_of_its_own() -> None:
    config = parse_with(
        "  username: both\n  password: B\nbroker: {username: broker01}\nworker: {username: gw01, password: W}"
    )
    found = {
        section: (mqtt.username, mqtt.password and mqtt.password.get_secret_value(), mqtt.host)
        for section, mqtt in ((name, config.mqtt_of(name)) for name in ("broker", "worker", "probe", "operator"))
    }
    host = config.mqtt.host
    assert found == {
        "broker": ("broker01", None, host),
        "worker": ("gw01", "W", host),
        "probe": ("both", "B", host),
        "operator": ("both", "B", host),
    }
    assert problems(MINIMAL + "broker: {password: B}\n") == ("broker (line 5): has a password without a username",)


def test_cleanup_and_metrics() -> None:
    config = parse_with(
        f"cleanup: {{adopt: yes, interval: 60.5, protected_keys: [{KEY}]}}\nmetrics: {{per_peer: true, peer_names: a}}"
    )
    assert config.cleanup.adopt
    assert config.cleanup.interval == 60.5
    assert config.cleanup.protected_keys == (PublicKey.parse(KEY),)
    assert config.metrics.per_peer
    assert config.metrics.peer_names == Path("a")


# --- all of them


def test_aliases_and_merging() -> None:
    config = parse_with(
        "broker_listen: &local {host: '::1', port: 1}\n"
        "broker: {metrics_listen: {<<: *local, port: 2}}\n"
        "worker: {metrics_listen: {port: 3, <<: [{host: '::2'}, *local]}}\n"
        "logging_config: {root: &root {level: error}, loggers: {a: *root}}\n",
    )
    assert str(config.broker_listen) == "[::1]:1"
    assert str(config.broker.metrics_listen) == "[::1]:2"
    assert str(config.worker.metrics_listen) == "[::2]:3"


@pytest.mark.parametrize(("section", "field"), [(None, "log_level"), ("mqtt", "port"), ("worker", "name")])
def test_frozen(section: str | None, field: str) -> None:
    config = parse(MINIMAL, "f")
    with pytest.raises((ValidationError, AttributeError)):
        setattr(getattr(config, section) if section else config, field, None)


def test_weights_are_frozen() -> None:
    workers: Any = parse_with("workers: {gw01: }\n").workers
    with pytest.raises(TypeError):
        workers["gw01"] = 2


def test_password_is_not_printed() -> None:
    config = parse_with("  password: SECRET\n")
    for printed in (repr(config), str(config), str(config.model_dump()), config.model_dump_json()):
        assert "SECRET" not in printed


def test_programs_make_listeners_of_their_own() -> None:
    assert str(Listen(host="::1", port=7)) == "[::1]:7"


def test_proxies_are_addresses_and_networks() -> None:
    config = parse_with("broker: {trusted_proxies: [192.0.2.1, '2001:db8::/32']}")
    assert config.broker.trusted_proxies == (ip_network("192.0.2.1"), ip_network("2001:db8::/32"))
    assert parse_with("broker: {trusted_proxies: []}").broker.trusted_proxies == ()
    assert ip_network("10.0.0.0/8") in parse(MINIMAL, "f").broker.trusted_proxies
