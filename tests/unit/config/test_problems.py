"""Files that are YAML, and wrong: each problem has its setting, its line and a sentence."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.helpers import KEY, ROOT
from tests.unit.config.samples import BROKEN, MINIMAL, problems
from wgkex_ops.config import parse

MAPPING: Final = "should be a mapping of settings"
LIST: Final = "should be a list, each item on a line of its own that starts with '- '"
TEXT: Final = "should be text; put it in quotes"
BOOLEAN: Final = "should be true or false, without quotes"
INTEGER: Final = "should be a valid integer, unable to parse string as an integer"
NUMBER: Final = "should be a valid number, unable to parse string as a number"
NO_BOOLEAN: Final = "should be a number, not true or false"
HOST: Final = "should be a host's name or address only: no URL, no port, no brackets, no spaces"
URL: Final = "should be a URL such as https://broker.example.net: http or https, a host, perhaps a port and a path"
NAME: Final = "should be at most 253 letters, digits, '.', '_' and '-', because it becomes part of MQTT topics, not"
LOCATION: Final = "should be at most 64 letters, digits, '.', '_' and '-', not"
LEVEL: Final = "should be one of debug, info, warning, error, critical"
FILE: Final = "should be the path of a file"
PUBLIC_KEY: Final = "should be a WireGuard public key (44 characters of base64)"


def test_all_problems_at_once_in_the_order_of_lines() -> None:
    assert problems(BROKEN.read_text()) == (
        "domains.1 (line 4): 'ffdon_welt' starts with none of domain_prefixes (ffmuc_)",
        "domains.2 (line 5): 'ffmuc_muc cty' may only have letters, digits, '_' and '-'",
        "workers.gw01.example.net.weight (line 11): should be greater than or equal to 0",
        "workers.gw02.example.net.weigth (line 13): unknown key; did you mean weight?",
        f"workers.gw/3 (line 14): {NAME} 'gw/3'",
        f"mqtt.broker_url (line 16): {HOST}",
        "mqtt.broker_prot (line 17): unknown key; did you mean broker_port?",
        "mqtt.password (line 18): has a YAML tag, which is not allowed; put a text that starts with '!' in quotes",
        "mqtt.keepalive (line 20): is given twice, first on line 19; remove one",
        f"mqtt.tls.ca_file (line 22): {FILE}",
        f"mqtt.tls.verify (line 23): {BOOLEAN}",
        f"broker_listen.port (line 25): {INTEGER}",
        (
            "metrics_listen (line 26): unknown key; did you mean broker.metrics_listen or worker.metrics_listen or "
            "probe.metrics_listen?"
        ),
        f"log_level (line 28): {LEVEL}",
        "worker.dataplane (line 30): should be 'kernel' or 'memory'",
        f"cleanup.never_after (line 32): {NUMBER}",
        f"cleanup.protected_keys.0 (line 34): {PUBLIC_KEY}",
        f"metrics (line 35): {MAPPING}",
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("log_level: info", ("domain_prefixes: is missing", "domains: is missing", "mqtt: is missing")),
        (
            "domains: []\ndomain_prefixes: ffmuc_\nmqtt: {broker_url: ''}",
            (
                "domains (line 1): should have at least one item",
                f"domain_prefixes (line 2): {LIST}",
                "mqtt.broker_url (line 3): is missing",
            ),
        ),
        (
            "domains: ffmuc_welt\ndomain_prefixes: [1, true]\nmqtt: mqtt.example.net",
            (f"domains (line 1): {LIST}", f"domain_prefixes.1 (line 2): {TEXT}", f"mqtt (line 3): {MAPPING}"),
        ),
        (
            'domains:\n- 42\n- [ffmuc_welt]\n-\n- a\ndomain_prefixes: ["a", "ff\\n", "\\e[31m"]\nmqtt: {broker_url: a}',
            (
                r"domains.0 (line 2): '42' starts with none of domain_prefixes (a, ff\n, \x1b[31m)",
                f"domains.1 (line 3): {TEXT}",
                f"domains.2 (line 4): {TEXT}",
                "domains.3 (line 5): 'a' is nothing but a prefix: nothing is left to name the interfaces after",
            ),
        ),
        (
            "domains:\n- a_welt\n- b_welt\n- a_welt\ndomain_prefixes: [a_, b_]\nmqtt: {broker_url: a}",
            (
                (
                    "domains (line 1): 'a_welt' and 'b_welt' need the same interfaces, wg-welt and vx-welt; "
                    "'a_welt' and 'a_welt' need the same interfaces, wg-welt and vx-welt"
                ),
            ),
        ),
    ],
    ids=["missing", "empty", "other types", "domains", "collisions"],
)
def test_needed_settings(text: str, expected: tuple[str, ...]) -> None:
    assert problems(text) == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("  username: yes", f"mqtt.username (line 5): {TEXT}"),
        ("  password: yes", f"mqtt.password (line 5): {TEXT}"),
        ("  password: [SECRET]", f"mqtt.password (line 5): {TEXT}"),
        ("  password: {SECRET: SECRET}", f"mqtt.password (line 5): {TEXT}"),
        ("  broker_port: yes", f"mqtt.broker_port (line 5): {NO_BOOLEAN}"),
        ("  broker_port: 1883.5", f"mqtt.broker_port (line 5): {INTEGER}"),
        ("  broker_port: 0x75B", f"mqtt.broker_port (line 5): {INTEGER}"),
        ("  broker_port: !!int many", f"mqtt.broker_port (line 5): {INTEGER}"),
        ("  version: 3.1", "mqtt.version (line 5): should be '5' or '3.1.1'"),
        ("  tls: 'false'", "mqtt.tls (line 5): should be true, false or a mapping"),
        ("  tls: 2", "mqtt.tls (line 5): should be true, false or a mapping"),
        ("  tls: [true]", f"mqtt.tls (line 5): {MAPPING}"),
        ("  tls: {cert_file: /}", f"mqtt.tls.cert_file (line 5): {FILE}"),
        ("broker_listen: {host: '[::1]'}", f"broker_listen.host (line 5): {HOST}"),
        ("broker_listen:\n  host: 127.0.0.1:80", f"broker_listen.host (line 6): {HOST}"),
        ("externalName: gw 01", f"externalName (line 5): {HOST}"),
        ("workers: [gw01]", f"workers (line 5): {MAPPING}"),
        ("workers: {gw01: 30}", f"workers.gw01 (line 5): {MAPPING}"),
        ("workers: {gw01: {weight: .nan}}", f"workers.gw01.weight (line 5): {NUMBER}"),
        ("workers: {gw01: {weight: nan}}", "workers.gw01.weight (line 5): should be less than or equal to 1000000"),
        ("workers: {gw01: {weight: true}}", f"workers.gw01.weight (line 5): {NO_BOOLEAN}"),
        ("workers: {gw01: {location: [north]}}", f"workers.gw01.location (line 5): {TEXT}"),
        ("workers: {gw01: {location: the north}}", f"workers.gw01.location (line 5): {LOCATION} 'the north'"),
        (
            "workers: {gw01: {location: " + "x" * 65 + "}}",
            f"workers.gw01.location (line 5): {LOCATION} '{'x' * 12}...{'x' * 13}'",
        ),
        ("broker: {location_tolerance: true}", f"broker.location_tolerance (line 5): {NO_BOOLEAN}"),
        ("broker: {location_tolerance: .nan}", f"broker.location_tolerance (line 5): {NUMBER}"),
        ("workers: {'': {weight: 1}}", f"workers. (line 5): {NAME} ''"),
        ("workers: {'#': {weight: 1}}", f"workers.# (line 5): {NAME} '#'"),
        ('broker: {name: "gw\\0"}', rf"broker.name (line 5): {NAME} 'gw\x00'"),
        (f"worker: {{name: {'a' * 254}}}", f"worker.name (line 5): {NAME} 'aaaaaaaaaaaa...aaaaaaaaaaaaa'"),
        ("broker: {publish_timeout: 0}", "broker.publish_timeout (line 5): should be greater than 0"),
        ("broker: {publish_timeout: 31}", "broker.publish_timeout (line 5): should be less than or equal to 30"),
        ("log_level: true", f"log_level (line 5): {LEVEL}"),
        ("logging_config: {root: {level: loud}}", f"logging_config.root.level (line 5): {LEVEL}"),
        ("logging_config: debug", f"logging_config (line 5): {MAPPING}"),
        ("cleanup: {adopt: 1}", f"cleanup.adopt (line 5): {BOOLEAN}"),
        (f"cleanup: {{protected_keys: {KEY}}}", f"cleanup.protected_keys (line 5): {LIST}"),
        (f"cleanup: {{protected_keys: [{'A' * 43}=]}}", f"cleanup.protected_keys.0 (line 5): {PUBLIC_KEY}"),
        ("metrics: {per_peer: maybe}", f"metrics.per_peer (line 5): {BOOLEAN}"),
        ("metrics: {peer_names: no}", f"metrics.peer_names (line 5): {TEXT}"),
        ("probe: {url: broker.example.net}", f"probe.url (line 5): {URL}"),
        ("probe: {url: ftp://broker.example.net}", f"probe.url (line 5): {URL}"),
        ("probe: {url: 'http://'}", f"probe.url (line 5): {URL}"),
        ("probe: {url: 'http://[::1'}", f"probe.url (line 5): {URL}"),
        ("probe: {url: 'http://a:99999'}", f"probe.url (line 5): {URL}"),
        ("probe: {url: 'http://a:0'}", f"probe.url (line 5): {URL}"),
        ("probe: {url: 'http://user:SECRET@a'}", f"probe.url (line 5): {URL}"),
        ("probe: {url: 'http://a/?key=SECRET'}", f"probe.url (line 5): {URL}"),
        ("probe: {url: 'http://a/#b'}", f"probe.url (line 5): {URL}"),
        ('probe: {url: "http://a/\\nb"}', f"probe.url (line 5): {URL}"),
        ("probe: {interval: inf}", "probe.interval (line 5): should be less than or equal to 3600"),
    ],
)
def test_value(lines: str, expected: str) -> None:
    assert problems(MINIMAL + lines) == (expected,)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("  broker_prot: 1", "mqtt.broker_prot (line 5): unknown key; did you mean broker_port?"),
        ("broker_port: 1", "broker_port (line 5): unknown key; did you mean mqtt.broker_port?"),
        ("cleanup: {name: a}", "cleanup.name (line 5): unknown key; did you mean broker.name or worker.name?"),
        ("workers: {gw01: {share: 3}}", "workers.gw01.share (line 5): unknown key; known here: weight, location"),
        (
            "  port: 1884",
            (
                "mqtt.port (line 5): unknown key; known here: broker_url, broker_port, username, password, keepalive, "
                "tls, version, session_expiry"
            ),
        ),
        # The model's name of a setting is not the file's.
        ("external_name: a", "external_name (line 5): unknown key; did you mean externalName?"),
        # Without a value it is unknown all the same.
        ("workerz:", "workerz (line 5): unknown key; did you mean worker?"),
        ("workers: {gw01: {'[key]': 1}}", "workers.gw01.[key] (line 5): unknown key; known here: weight, location"),
    ],
)
def test_unknown_key(lines: str, expected: str) -> None:
    assert problems(MINIMAL + lines) == (expected,)


def test_key_without_a_certificate(tmp_path: Path) -> None:
    (tmp_path / "client.key").touch()
    assert problems(MINIMAL + f"  tls: {{key_file: {tmp_path}/client.key}}") == (
        "mqtt.tls (line 5): has a key_file without a cert_file; the server asks for both or none",
    )


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """Opening a FIFO would wait for a writer; a name too long is an error of the file system."""
    os.mkfifo(tmp_path / "fifo")
    assert problems(MINIMAL + f"  tls:\n    ca_file: {tmp_path}/fifo\n    cert_file: {'a' * 300}") == (
        f"mqtt.tls.ca_file (line 6): {FILE}",
        "mqtt.tls.cert_file (line 7): cannot be read: File name too long",
    )


def test_a_host_whose_name_cannot_be_a_topic() -> None:
    """A process of its own: the settings take the function when they are imported."""
    script = (
        "import socket; socket.gethostname = lambda: 'gw/01'; from wgkex_ops.config import parse; "
        f"parse({MINIMAL!r} + 'broker: {{name: broker01}}', 'f')"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == f"wgkex_ops.errors.ConfigError: f: worker.name: {NAME} 'gw/01'"


def test_only_listed_workers_without_any() -> None:
    setting = "broker: {workers_only_listed: true}\n"
    assert problems(MINIMAL + setting) == (
        "broker (line 5): has workers_only_listed, and no workers are listed: nodes would get no gateway",
    )
    assert parse(f"{MINIMAL}workers: {{gw01: {{}}}}\n{setting}", "f").broker.workers_only_listed
