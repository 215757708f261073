"""The configuration: what is read, and what is said about mistakes."""

import os
import re
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import hypothesis
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from wgkex_ops.config import (
    BrokerConfig,
    Config,
    Listen,
    MqttConfig,
    TlsConfig,
    WorkerConfig,
    config_path,
    load,
    parse,
    settings,
)
from wgkex_ops.errors import ConfigError
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.peers import ROUTE_PROTOCOL

ROOT: Final = Path(__file__).parents[3]
TESTDATA: Final = ROOT / "tests" / "testdata" / "config"
EXAMPLE: Final = ROOT / "wgkex.yaml.example"
REFERENCE: Final = ROOT / "docs" / "configuration.md"

MINIMAL: Final = "domains: [ffmuc_welt]\ndomain_prefixes: [ffmuc_]\nmqtt:\n  broker_url: mqtt.example.net\n"
WELT: Final = Domain(name="ffmuc_welt", wg="wg-welt", vx="vx-welt")

KNOWN_AT_THE_TOP: Final = (
    "known here: domains, domain_prefixes, workers, externalName, mqtt, broker_listen, logging_config, log_level, "
    "broker, worker, cleanup, metrics"
)
NAME_RULE: Final = (
    "should be a name of at most 253 letters, digits, '.', '_' and '-', since it becomes part of MQTT topics"
)

# Each bad file with everything that is said about it, behind the file's name.
MESSAGES: Final[Mapping[str, tuple[str, ...]]] = {
    "bad_choices": (
        "mqtt.version (line 5): should be '5' or '3.1.1', not 3.1",
        "worker.dataplane (line 7): should be 'kernel' or 'memory', not 'kernal'",
    ),
    "bad_confirm_timeout": ("broker.confirm_timeout (line 6): should be from 0 to 10, not -0.1",),
    "bad_confirm_timeout_too_long": ("broker.confirm_timeout (line 6): should be from 0 to 10, not 10.5",),
    "bad_contains_itself": ("workers.gw01.example.net (line 5): contains itself",),
    "bad_contains_itself_in_a_list": (
        "a.0 (line 1): contains itself",
        f"a (line 1): unknown key; {KNOWN_AT_THE_TOP}",
    ),
    "bad_domains_are_wrong": (
        "domains.1 (line 3): 'ffdon_welt' starts with none of domain_prefixes (ffmuc_)",
        "domains.2 (line 4): 'ffmuc_muc cty' may only have letters, digits, '_' and '-'",
        "domains.4 (line 6): 'ffmuc_' is nothing but a prefix: nothing is left to name the interfaces after",
        "domains.5 (line 7): should be text, not 42; put it in quotes",
        "domains.6 (line 8): should be text, not a list",
        "domains.7 (line 9): should be text, not nothing",
    ),
    "bad_domains_collide": (
        "domains.1 (line 3): 'ffdon_welt' needs the same interfaces as 'ffmuc_welt': wg-welt and vx-welt",
        "domains.2 (line 4): 'ffmuc_welt' is listed twice; remove one",
    ),
    "bad_domains_is_empty": ("domains (line 1): should have at least one item",),
    "bad_domains_is_text": (
        "domains (line 1): should be a list, each item on a line of its own that starts with '- ', not text",
    ),
    "bad_duplicate_key": ("mqtt (line 7): is given twice, first on line 3; remove one",),
    "bad_empty": ("is empty; start from wgkex.yaml.example",),
    "bad_everything_missing": (
        "domains: is missing, and has no default",
        "domain_prefixes: is missing, and has no default",
        "mqtt: is missing, and has no default",
    ),
    "bad_half_a_character": (
        "mqtt.username (line 5): has half a character in it; write it as it is or as \\U and eight digits",
        "mqtt.'\\udfff' (line 6): has a key with half a character in it",
    ),
    "bad_host_is_a_number": ("broker_listen.host (line 5): should be text, not 10.1; put it in quotes",),
    "bad_host_with_port": (
        (
            "broker_listen.host (line 6): should be a host's name or address and nothing else (no URL, no port, "
            "no brackets, no spaces)"
        ),
    ),
    "bad_keepalive_out_of_range": ("mqtt.keepalive (line 5): should be from 0 to 65535, not 65536",),
    "bad_key_is_a_list": ("line 5: has a key that is not text",),
    "bad_log_levels": (
        "log_level (line 5): should be one of debug, info, warning, error, critical, not 'loud'",
        "logging_config.root.level (line 8): should be one of debug, info, warning, error, critical, not true",
    ),
    "bad_logging_config": ("logging_config (line 5): should be a mapping of settings, not text",),
    "bad_long_value": (
        (
            "log_level (line 5): should be one of debug, info, warning, error, critical, not "
            "'longlonglonglonglonglonglonglonglonglon…"
        ),
    ),
    "bad_merge": ("broker_listen (line 6): has a '<<' of something that is not a mapping",),
    "bad_mqtt_is_text": ("mqtt (line 3): should be a mapping of settings, not text",),
    "bad_mqtt_without_server": ("mqtt.broker_url (line 3): is missing, and has no default",),
    "bad_names": (
        f"broker.name (line 6): {NAME_RULE}, not ''",
        f"worker.name (line 8): {NAME_RULE}, not 'gw\\x00'",
        f"workers.gw/1 (line 10): {NAME_RULE}, not 'gw/1'",
        f"workers.gw+ (line 11): {NAME_RULE}, not 'gw+'",
        f"workers.# (line 12): {NAME_RULE}, not '#'",
    ),
    "bad_nested_too_deeply": ("line 5, column 48: is nested too deeply",),
    "bad_cleanup": (
        "cleanup.interval (line 6): should be from 10 to 3600, not 0",
        "cleanup.stale_after (line 7): should be from 600 to 604800, not 180",
        "cleanup.never_after (line 8): should be a number, not '10 min'",
        "cleanup.adopt (line 9): should be true or false, not 'maybe'",
        (
            "cleanup.protected_keys.0 (line 11): should be a WireGuard public key (44 characters of base64), not "
            "'not a key'"
        ),
        (
            "cleanup.protected_keys.1 (line 12): should be a WireGuard public key (44 characters of base64), not "
            "'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA…"
        ),
        "cleanup.protected_keys.2 (line 13): should be text, not 7; put it in quotes",
        "cleanup.intervall (line 14): unknown key; did you mean interval?",
    ),
    "bad_cleanup_keys_are_text": (
        (
            "cleanup.protected_keys (line 6): should be a list, each item on a line of its own that starts with '- ', "
            "not text"
        ),
    ),
    "bad_metrics": (
        "metrics.per_peer (line 6): should be true or false, not 'yes, please'",
        "metrics.per_peer_limit (line 7): should be from 0 to 100000, not -1",
        "metrics.peer_names (line 8): should be text, not 7; put it in quotes",
        "metrics.per_peer_limits (line 9): unknown key; did you mean per_peer_limit?",
    ),
    "bad_number_is_none": (
        "mqtt.broker_port (line 5): cannot be read; if it is a text, put it in quotes",
        "mqtt.tls (line 6): cannot be read; if it is a text, put it in quotes",
    ),
    "bad_number_too_long": ("mqtt.broker_port (line 5): cannot be read; if it is a text, put it in quotes",),
    "bad_only_a_list": ("should be a mapping of settings, not a list; start from wgkex.yaml.example",),
    "bad_only_a_number": ("should be a mapping of settings, not a number; start from wgkex.yaml.example",),
    "bad_only_comments": ("is empty; start from wgkex.yaml.example",),
    "bad_only_text": ("should be a mapping of settings, not text; start from wgkex.yaml.example",),
    "bad_password_is_a_list": ("mqtt.password (line 5): should be text; put the password in quotes",),
    "bad_password_is_a_mapping": (
        "mqtt.password (line 5): has a YAML tag, which is not allowed; put a text that starts with '!' in quotes",
        "mqtt.password (line 5): is given twice, first on line 5; remove one",
    ),
    "bad_password_is_a_number": (
        "mqtt.username (line 5): should be text, not 4711; put it in quotes",
        "mqtt.password (line 6): should be text; put the password in quotes",
    ),
    "bad_port_is_a_boolean": ("mqtt.broker_port (line 5): should be a whole number, not true",),
    "bad_port_is_no_whole_number": ("mqtt.broker_port (line 5): should be a whole number, not 1883.5",),
    "bad_port_is_text": ("broker_listen.port (line 6): should be a whole number, not 'x'",),
    "bad_ports_out_of_range": (
        "mqtt.broker_port (line 5): should be a port from 1 to 65535, not 0",
        "broker_listen.port (line 7): should be a port from 1 to 65535, not 65536",
        "worker.metrics_listen.port (line 10): should be a port from 1 to 65535, not -1",
    ),
    "bad_prefix_with_a_control_character": (
        r"domains.0 (line 1): 'ffmuc_welt' starts with none of domain_prefixes (ffmuc_\n, \x1b[31m)",
    ),
    "bad_prefixes_are_wrong": (
        "domain_prefixes.0 (line 2): should be text, not 1; put it in quotes",
        "domain_prefixes.1 (line 2): should be text, not true; put it in quotes",
    ),
    "bad_prefixes_missing": ("domain_prefixes: is missing, and has no default",),
    "bad_publish_timeout": ("broker.publish_timeout (line 6): should be more than 0 and at most 30 seconds, not 0",),
    "bad_publish_timeout_too_long": (
        "broker.publish_timeout (line 6): should be more than 0 and at most 30 seconds, not 31",
    ),
    "bad_route_protocol": (
        (
            "worker.route_protocol (line 6): should be from 5 to 255, not 4; 0 to 4 belong to the kernel "
            "(linux/rtnetlink.h)"
        ),
    ),
    "bad_session_expiry": ("mqtt.session_expiry (line 5): should be from 0 to 4294967295, not -1",),
    "bad_session_expiry_too_long": ("mqtt.session_expiry (line 5): should be from 0 to 4294967295, not 4294967296",),
    "bad_shutdown_delay": ("broker.shutdown_delay (line 6): should be from 0 to 300, not -1",),
    "bad_shutdown_delay_too_long": ("broker.shutdown_delay (line 6): should be from 0 to 300, not 300.5",),
    "bad_state_dir": ("worker.state_dir (line 6): should be the path of a directory, not ''",),
    "bad_syntax_alias": (
        "line 5, column 13: a value that starts with '*' refers to an anchor, and there is none; put it in quotes",
    ),
    "bad_syntax_anchor": (
        "line 5, column 14: a value that starts with '*', '&' or '!' means something to YAML; put it in quotes",
    ),
    "bad_syntax_anchor_twice": ("line 6, column 13: has an anchor ('&') of the same name as an earlier one",),
    "bad_syntax_bracket": (
        (
            "line 2, column 16: is not valid in a list or mapping in brackets; a comma or the closing bracket may "
            "be missing"
        ),
    ),
    "bad_syntax_character": ("line 5, column 13: a value cannot start with this character; put it in quotes",),
    "bad_syntax_colon": (
        "line 5, column 19: has an unexpected ':'; check the indentation, put text with ': ' in quotes",
    ),
    "bad_syntax_control_character": ("line 5: has a character that YAML does not allow",),
    "bad_syntax_dash": ("line 5, column 13: has an unexpected '- '; check the indentation",),
    "bad_syntax_directive": ("line 1, column 1: is not valid YAML",),
    "bad_syntax_documents": ("line 5, column 1: begins a second document ('---'); only one is expected",),
    "bad_syntax_escape": ("line 5, column 13: has an unknown escape sequence in its text; put it in single quotes",),
    "bad_syntax_escape_too_high": ("is not valid YAML",),
    "bad_syntax_handle": ("line 5, column 13: a value that starts with '!' means something to YAML; put it in quotes",),
    "bad_syntax_indentation": (
        "line 5, column 2: is not indented like the lines before it, or has text after a closing quote",
    ),
    "bad_syntax_key": ("line 6, column 1: has a key without ':', or is not indented like its neighbours",),
    "bad_syntax_quote": ("line 5, column 13: begins a text in quotes that are never closed",),
    "bad_syntax_quote_closed_early": (
        "line 5, column 21: is not indented like the lines before it, or has text after a closing quote",
    ),
    "bad_syntax_tab": ("line 6, column 1: is indented with a tab; YAML wants spaces",),
    "bad_tag": (
        "mqtt.password (line 5): has a YAML tag, which is not allowed; put a text that starts with '!' in quotes",
        "mqtt.username (line 6): has a YAML tag, which is not allowed; put a text that starts with '!' in quotes",
        "workers (line 7): has a YAML tag, which is not allowed; put a text that starts with '!' in quotes",
    ),
    "bad_tls": ("mqtt.tls (line 5): should be true, false or a mapping, not 'false'",),
    "bad_tls_files": (
        "mqtt.tls.ca_file (line 6): 'missing.pem' cannot be read: No such file or directory",
        "mqtt.tls.cert_file (line 7): '/' is not a file",
        "mqtt.tls.key_file (line 8): should be the path of a file, not ''",
        "mqtt.tls.verify (line 9): should be true or false, not 'no'",
    ),
    "bad_tls_without_certificate": (
        "mqtt.tls.key_file (line 5): 'client.pem' cannot be read: No such file or directory",
    ),
    "bad_unknown_key": ("mqtt.broker_prot (line 5): unknown key; did you mean broker_port?",),
    "bad_unknown_key_at_home_elsewhere": ("broker_port (line 5): unknown key; did you mean mqtt.broker_port?",),
    "bad_unknown_key_like_none": ("workers.gw01.example.net.pop (line 7): unknown key; known here: weight",),
    "bad_unknown_key_of_the_models": (
        (
            "mqtt.port (line 5): unknown key; known here: broker_url, broker_port, username, password, keepalive, "
            "tls, version, session_expiry"
        ),
    ),
    "bad_url_with_password": (
        (
            "mqtt.broker_url (line 4): should be a host's name or address and nothing else (no URL, no port, no "
            "brackets, no spaces)"
        ),
    ),
    "bad_weights": (
        "workers.gw01.weight (line 6): should be from 0 to 1000000, not -1",
        "workers.gw02.weight (line 7): should be a number, not nan",
        "workers.gw03.weight (line 8): should be a number, not inf",
        "workers.gw04.weight (line 9): should be a number, not 'heavy'",
        "workers.gw05.weight (line 10): should be a number, not true",
        "workers.gw06 (line 11): should be a mapping of settings, not a number",
        "workers.gw07.weight (line 12): should be from 0 to 1000000, not 10000000.0",
    ),
    "bad_workers_is_a_list": ("workers (line 5): should be a mapping of settings, not a list",),
}


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "f")
    assert all(problem.startswith("f: ") for problem in caught.value.problems)
    return tuple(problem.removeprefix("f: ") for problem in caught.value.problems)


# --- bad files


def test_each_bad_file_has_its_messages() -> None:
    assert {path.stem for path in TESTDATA.glob("bad_*")} == set(MESSAGES)


@pytest.mark.parametrize("name", MESSAGES)
def test_bad_file(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(TESTDATA)
    with pytest.raises(ConfigError) as caught:
        load(Path(f"{name}.yaml"))
    assert caught.value.problems == tuple(f"{name}.yaml: {message}" for message in MESSAGES[name])
    assert all(message.isprintable() for message in caught.value.problems)
    assert "SECRET" not in str(caught.value)
    # Nothing that a logger would print along with it.
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "wgkex.yaml")
    assert caught.value.problems == (
        f"{tmp_path}/wgkex.yaml: there is no such file; name one with --config or WGKEX_CONFIG_FILE",
    )


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/", "/: is a directory, not a file"),
        # Reading it fails for root, too, whom permissions do not stop.
        ("/proc/self/mem", "/proc/self/mem: cannot be read: Input/output error"),
        ("/dev/zero", "/dev/zero: is larger than 1048576 bytes, which no configuration is"),
        ("wg\0kex", "'wg\\x00kex': is not a possible name of a file"),
    ],
)
def test_file_that_cannot_be_read(path: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(Path(path))
    assert caught.value.problems == (message,)
    assert caught.value.__context__ is None


def test_encoding(tmp_path: Path) -> None:
    path = tmp_path / "wgkex.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + MINIMAL.encode())
    assert load(path) == parse(MINIMAL, "f")
    path.write_bytes(MINIMAL.encode() + "  username: Jürgen\n".encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert caught.value.problems == (f"{path}: line 5: is not UTF-8; save the file in that encoding",)


@pytest.mark.parametrize(
    "text",
    [
        # A billion laughs, as lists and as merged mappings.
        "logging_config:\n  a: &a [x]\n"
        + "".join(f"  {b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True)),
        "logging_config:\n  a: &a {x: 1}\n"
        + "".join(
            f"  {b}: &{b} {{<<: [{','.join([f'*{a}'] * 9)}]}}\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True)
        ),
        # No bomb, but as many problems as there are workers times keys.
        f"logging_config: &a {{{','.join(f'k{number}: 1' for number in range(1000))}}}\nworkers:\n"
        + "".join(f"  gw{number}: *a\n" for number in range(1000)),
    ],
    ids=["lists", "merged", "product"],
)
@pytest.mark.timeout(10)
def test_aliases_cannot_explode(text: str) -> None:
    assert problems(MINIMAL + text) == ("has more than 20000 values, each alias counted as what it stands for",)


def test_a_host_whose_name_cannot_be_a_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "gw/01")
    assert problems(MINIMAL) == (f"broker.name: {NAME_RULE}, not 'gw/01'", f"worker.name: {NAME_RULE}, not 'gw/01'")
    named = parse(MINIMAL + "broker: {name: broker01}\nworker: {name: gw01}\n", "f")
    assert (named.broker.name, named.worker.name) == ("broker01", "gw01")


# --- good files


def test_file_of_the_old_tool() -> None:
    assert load(TESTDATA / "old.yaml") == Config(
        domains=(
            Domain(name="ffexa_altstadt", wg="wg-altstadt", vx="vx-altstadt"),
            Domain(name="ffexa_hafen", wg="wg-hafen", vx="vx-hafen"),
            Domain(name="ffdorf_ring", wg="wg-ring", vx="vx-ring"),
        ),
        workers={"gw01.in.example.org": 40, "gw02.in.example.org": 20, "gw03.in.example.org": 1},
        external_name="gw01.ext.example.org",
        mqtt=MqttConfig(
            host="mqtt.example.org",
            port=1884,
            username="gateway",
            password=SecretStr("not-a-secret"),
            keepalive=10,
            tls=None,
            version="5",
            session_expiry=3600,
        ),
        broker=BrokerConfig(
            name=socket.gethostname(),
            listen=Listen(host="0.0.0.0", port=5001),
            metrics_listen=Listen(host="127.0.0.1", port=9690),
            publish_timeout=3.0,
            confirm_timeout=0.75,
            shutdown_delay=0,
        ),
        worker=WorkerConfig(
            name=socket.gethostname(),
            metrics_listen=Listen(host="127.0.0.1", port=9691),
            dataplane="kernel",
            route_protocol=158,
        ),
        log_level="debug",
    )


def test_defaults() -> None:
    config = parse(MINIMAL, "f")
    assert config == Config(
        domains=(WELT,),
        workers={},
        external_name=None,
        mqtt=MqttConfig(
            host="mqtt.example.net",
            port=1883,
            username=None,
            password=None,
            keepalive=5,
            tls=None,
            version="5",
            session_expiry=3600,
        ),
        broker=BrokerConfig(
            name=socket.gethostname(),
            listen=Listen(host="127.0.0.1", port=5000),
            metrics_listen=Listen(host="127.0.0.1", port=9690),
            publish_timeout=3.0,
            confirm_timeout=0.75,
            shutdown_delay=0,
        ),
        worker=WorkerConfig(
            name=socket.gethostname(),
            metrics_listen=Listen(host="127.0.0.1", port=9691),
            dataplane="kernel",
            route_protocol=ROUTE_PROTOCOL,
        ),
        log_level="info",
    )
    assert config == Config(domains=(WELT,), mqtt=MqttConfig(host="mqtt.example.net"))


def test_without_a_value_is_the_same_as_absent() -> None:
    empty = """
workers:
externalName: ""
broker_listen: {host: , port: }
logging_config:
log_level:
broker: {name: , metrics_listen: , publish_timeout: , confirm_timeout: }
worker:
  metrics_listen: {host: ~}
"""
    mqtt = "  broker_port:\n  username:\n  password: ''\n  keepalive:\n  tls:\n  version:\n  session_expiry:\n"
    assert parse(MINIMAL + mqtt + empty, "f") == parse(MINIMAL, "f")
    assert parse(MINIMAL + "  username: ''\n  tls: ''\nlogging_config: {root: }\n", "f") == parse(MINIMAL, "f")


def test_part_of_a_listener_keeps_the_default_of_the_other_part() -> None:
    config = parse(MINIMAL + "broker_listen: {host: '::'}\nbroker: {metrics_listen: {port: 80}}\n", "f")
    assert config.broker.listen == Listen(host="::", port=5000)
    assert config.broker.metrics_listen == Listen(host="127.0.0.1", port=80)


@pytest.mark.parametrize(
    ("host", "shown"),
    [("0.0.0.0", "0.0.0.0:0"), ("::", "[::]:0"), ("fe80::1%eth0", "[fe80::1%eth0]:0"), ("localhost", "localhost:0")],
)
def test_listeners_are_shown_as_urls_have_them(host: str, shown: str) -> None:
    assert str(parse(MINIMAL + f"broker_listen: {{host: '{host}', port: 0}}", "f").broker.listen) == shown


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
    assert parse(MINIMAL + lines, "f").log_level == level


@pytest.mark.parametrize(
    ("weight", "number"),
    [
        ("30", 30),
        ("'30'", 30),
        ("' 30 '", 30),
        ("0", 0),
        ("0.5", 0.5),
        ("'0.5'", 0.5),
        ("2.0", 2),
        ("1e3", 1000),
        ("", 1),
    ],
)
def test_weight(weight: str, number: float) -> None:
    config = parse(MINIMAL + f"workers:\n  gw01.example.net:\n    weight: {weight}\n", "f")
    assert config.workers == {"gw01.example.net": number}


@pytest.mark.parametrize("entry", ["", "{}", "{weight: }"])
def test_listed_without_a_weight(entry: str) -> None:
    assert parse(MINIMAL + f"workers:\n  42: {entry}\n", "f").workers == {"42": 1}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("true", TlsConfig()),
        ("True", TlsConfig()),
        ("yes", TlsConfig()),
        ("1", TlsConfig()),
        ("'true'", TlsConfig()),
        ("{}", TlsConfig()),
        ("{verify: false}", TlsConfig(verify=False)),
        ("false", None),
        ("no", None),
        ("0", None),
    ],
)
def test_tls(value: str, expected: TlsConfig | None) -> None:
    assert parse(MINIMAL + f"  tls: {value}\n", "f").mqtt.tls == expected


def test_tls_files(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("ca.pem", "client.pem", "client.key")]
    for file in files:
        file.touch()
    ca, cert, key = files
    both = parse(MINIMAL + f"  tls: {{ca_file: {ca}, cert_file: {cert}, key_file: {key}}}\n", "f")
    assert both.mqtt.tls == TlsConfig(ca_file=ca, cert_file=cert, key_file=key, verify=True)
    in_one = parse(MINIMAL + f"  tls: {{cert_file: {cert}}}\n", "f")
    assert in_one.mqtt.tls == TlsConfig(cert_file=cert)
    assert problems(MINIMAL + f"  tls: {{key_file: {key}}}\n") == (
        "mqtt.tls (line 5): has a key_file without a cert_file; the server asks for both or none",
    )


def test_tls_file_is_a_fifo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening it would wait for a writer."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    assert problems(MINIMAL + "  tls: {ca_file: fifo}\n") == ("mqtt.tls.ca_file (line 5): 'fifo' is not a file",)


@pytest.mark.parametrize(("version", "expected"), [("5", "5"), ("'5'", "5"), ("3.1.1", "3.1.1")])
def test_mqtt_version(version: str, expected: str) -> None:
    assert parse(MINIMAL + f"  version: {version}\n", "f").mqtt.version == expected


def test_dates_stay_text() -> None:
    assert parse(MINIMAL + "  username: 2024-13-99\n", "f").mqtt.username == "2024-13-99"


def test_aliases_and_merging() -> None:
    config = parse(
        MINIMAL
        + "broker_listen: &local {host: '::1', port: 1}\n"
        + "broker: {metrics_listen: {<<: *local, port: 2}}\n"
        + "worker: {metrics_listen: {port: 3, <<: [{host: '::2'}, *local]}}\n",
        "f",
    )
    assert config.broker.listen == Listen(host="::1", port=1)
    assert config.broker.metrics_listen == Listen(host="::1", port=2)
    assert config.worker.metrics_listen == Listen(host="::2", port=3)
    # A problem is where the value stands, not where it is used.
    assert problems(MINIMAL + "logging_config: &a\n  port: x\nbroker_listen:\n  <<: *a\n") == (
        "broker_listen.port (line 6): should be a whole number, not 'x'",
    )


def test_frozen() -> None:
    config = parse(MINIMAL + "workers: {gw01: }\n", "f")
    with pytest.raises(ValidationError):
        config.log_level = "debug"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        config.mqtt.port = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        config.workers["gw01"] = 2  # type: ignore[index]


def test_password_is_not_printed() -> None:
    config = parse(MINIMAL + "  password: SECRET\n", "f")
    assert config.mqtt.password is not None
    assert config.mqtt.password.get_secret_value() == "SECRET"
    for printed in (repr(config), str(config), str(config.model_dump()), config.model_dump_json()):
        assert "SECRET" not in printed


@pytest.mark.parametrize(
    ("argument", "environ", "expected"),
    [
        ("a.yaml", {"WGKEX_CONFIG_FILE": "b.yaml"}, "a.yaml"),
        (None, {"WGKEX_CONFIG_FILE": "b.yaml"}, "b.yaml"),
        (None, {"WGKEX_CONFIG_FILE": ""}, "/etc/wgkex.yaml"),
        (None, {}, "/etc/wgkex.yaml"),
    ],
)
def test_config_path(argument: str | None, environ: dict[str, str], expected: str) -> None:
    assert config_path(None if argument is None else Path(argument), environ) == Path(expected)


# --- what is written about the settings


def uncommented(text: str) -> str:
    """Make the example one in which every setting is set: `#key` is a setting, `# word` is explanation."""
    return re.sub(r"^( *)#(?=\S)", r"\1", text, flags=re.MULTILINE)


def paths(data: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """List the settings of a file with their values, as settings() spells them."""
    for key, value in data.items() if isinstance(data, dict) else ():
        path = prefix + ("*" if prefix == "workers." else key)
        if path != "workers.*":
            yield path, value
        yield from paths(value, path + ".")


def test_example_is_valid_as_it_stands() -> None:
    config = load(EXAMPLE)
    assert [domain.name for domain in config.domains][-1] == "ffmuc_welt"
    assert config.workers == {"gw01.example.net": 30, "gw02.example.net": 30, "gw03.example.net": 20}
    # What else it sets are defaults.
    assert config == Config(
        domains=config.domains, workers=config.workers, mqtt=MqttConfig(host="mqtt.example.net", tls=None)
    )


def test_example_has_every_setting_and_no_other(tmp_path: Path) -> None:
    text = uncommented(EXAMPLE.read_text())
    assert {path for path, _ in paths(yaml.safe_load(text))} == set(settings())
    for name in ("ca.pem", "client.pem", "client.key"):
        (tmp_path / name).touch()
    config = parse(text.replace("/etc/wgkex/", f"{tmp_path}/"), "f")
    assert config.mqtt.tls == TlsConfig(
        ca_file=tmp_path / "ca.pem", cert_file=tmp_path / "client.pem", key_file=tmp_path / "client.key"
    )
    assert config.external_name == "gw01.example.net"


def test_example_tells_who_uses_each_setting() -> None:
    """The users stand in brackets at the beginning of the comment above, which several lines may share."""
    users = ""
    above = ""
    for line in EXAMPLE.read_text().splitlines():
        if line.lstrip().startswith("# "):
            if not above.lstrip().startswith("# "):
                match = re.match(r" *# \[(.*?)\]", line)
                users = match.group(1) if match else ""
        elif re.match(r" *#?[a-z]", line, re.IGNORECASE):
            assert users in {"broker", "worker", "broker, worker"}, line
        above = line


def reference() -> dict[str, str]:
    """The default of each setting in the table, as it is written there."""
    rows = re.findall(
        r"^\| `(.+?)` \| .*? \| (.*?) \| (?:broker|worker|both) \| .+ \|$", REFERENCE.read_text(), re.MULTILINE
    )
    assert len(rows) == len(dict(rows))
    return dict(rows)


def test_reference_has_every_setting_and_no_other() -> None:
    assert list(reference()) == list(settings())


def given_value(path: str, value: object) -> dict[str, Any]:
    """Make a file with one setting more than it needs; None for the sections that it is in and nothing else."""
    data: dict[str, Any] = yaml.safe_load(MINIMAL)
    *parents, key = path.replace("*", "gw01").split(".")
    section = data
    for parent in parents:
        section = section.setdefault(parent, {})
    if value is not None:
        section[key] = value
    return data


@pytest.mark.parametrize("path", settings())
def test_reference_tells_the_defaults(path: str) -> None:
    default = reference()[path]
    if default == "needed":
        data: dict[str, Any] = yaml.safe_load(MINIMAL)
        *parents, key = path.split(".")
        del (data[parents[0]] if parents else data)[key]
        assert any(problem.startswith(path) and "is missing" in problem for problem in problems(yaml.safe_dump(data)))
    elif default == "the host's name":
        config = parse(MINIMAL, "f")
        found = {"broker.name": config.broker.name, "worker.name": config.worker.name, "externalName": None}
        assert found[path] in {socket.gethostname(), None}
    else:
        value = yaml.safe_load(default.strip("`"))
        with_default = parse(yaml.safe_dump(given_value(path, value)), "f")
        assert with_default == parse(yaml.safe_dump(given_value(path, None)), "f")


def test_example_shows_the_defaults() -> None:
    """A setting that is commented out shows its default, unless it has none."""
    defaults = {path: yaml.safe_load(default.strip("`")) for path, default in reference().items() if "`" in default}
    shown = dict(paths(yaml.safe_load(uncommented(EXAMPLE.read_text()))))
    set_there = dict(paths(yaml.safe_load(EXAMPLE.read_text())))
    for path, default in defaults.items():
        if path not in set_there and default is not None and not isinstance(shown[path], dict):
            assert shown[path] == default, path


# --- anything else


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.dates()
    | st.binary(max_size=4)
    | st.sampled_from(["ffmuc_welt", "ffmuc_", "127.0.0.1", "5", "DEBUG", "kernel", "true", "/", "\ud800"])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([path.rpartition(".")[2] for path in settings()]) | scalars, inner, max_size=4
        )
    ),
    max_leaves=12,
)
# Mostly the shape of a real file, so that what is wrong is deep inside, too.
files = st.fixed_dictionaries(
    {},
    optional={
        "domains": st.lists(scalars) | values,
        "domain_prefixes": st.just(["ffmuc_"]) | values,
        "workers": st.dictionaries(scalars, st.fixed_dictionaries({}, optional={"weight": scalars}) | values) | values,
        **{
            section: st.dictionaries(
                st.sampled_from([path.partition(".")[2] for path in settings() if path.startswith(f"{section}.")]),
                values,
                max_size=4,
            )
            | values
            for section in ("mqtt", "broker_listen", "logging_config", "broker", "worker")
        },
        "log_level": values,
        "externalName": values,
    },
)


def parse_or_refuse(text: str) -> None:
    """Check that there is a configuration or a list of problems, each on one line, in our words, and nothing else."""
    told: tuple[str, ...] = ()
    try:
        parse(text, "f")
    except ConfigError as error:
        told = error.problems or ("nothing was told",)
    for problem in told:
        assert problem.startswith("f: ")
        assert problem.isprintable()
        # pydantic's words.
        assert "nput should" not in problem
        assert "cannot be used" not in problem


@given(files | values)
@hypothesis.settings(deadline=None)
@hypothesis.example({"[key]": None, "workers": {"[key]": 1, "gw01": {"[key]": 1}, "gw/1": {"weight": "x"}}})
def test_any_structure_is_a_configuration_or_a_config_error(data: object) -> None:
    parse_or_refuse(yaml.safe_dump(data))


@given(st.text(alphabet=st.characters() | st.sampled_from("{}[],:&*!|>'\"%@`?-# \n\t\\x08uUsf01.<~"), max_size=60))
@hypothesis.settings(deadline=None)
@hypothesis.example('"\\U7fffffff"')
@hypothesis.example("%YAML " + "9" * 5000 + ".1\n---\na")
@hypothesis.example("!!int ''")
@hypothesis.example("? ? ? a")
@hypothesis.example("a: !<!> b")
def test_any_text_is_a_configuration_or_a_config_error(text: str) -> None:
    parse_or_refuse(text)
    parse_or_refuse(MINIMAL + text)
    parse_or_refuse(MINIMAL + "log_level: " + text)


@given(st.data())
@hypothesis.settings(deadline=None, max_examples=50)
def test_a_damaged_file_is_a_configuration_or_a_config_error(data: st.DataObject) -> None:
    text = (TESTDATA / "old.yaml").read_text()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 20)))
    parse_or_refuse(text[:start] + data.draw(st.text(max_size=5)) + text[end:])


@given(
    st.sampled_from(["{p}", "[{p}]", "{{{p}: {p}}}", "!{p} {p}", "'{p}", '"{p}\\q"', "&{p} *{p}x", "- {p}", "{p}: {p}"])
)
def test_no_mistake_around_the_password_prints_it(form: str) -> None:
    text = MINIMAL.replace("mqtt:\n", f"mqtt:\n  password: {form.format(p='SECRET')}\n").replace("[ffmuc_]", "[]")
    assert not [problem for problem in problems(text) if "SECRET" in problem]
