"""`wgkex-ops probe`: what its options mean, and what `--once` prints."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.helpers import KEY
from wgkex_ops.__main__ import main, parser
from wgkex_ops.bus.messages import Endpoint
from wgkex_ops.cli.probe import CRITICAL, OK, UNKNOWN, WARNING, choose, summary
from wgkex_ops.config import Config, parse
from wgkex_ops.errors import ConfigError
from wgkex_ops.model.rounds import PHASES, Round
from wgkex_ops.probe.choice import Choice

DOCUMENT: Final[dict[str, Any]] = {
    "domains": ["ffmuc_welt", "ffmuc_city"],
    "domain_prefixes": ["ffmuc_"],
    "mqtt": {"broker_url": "mqtt.example.net"},
    "broker_listen": {"port": 5001},
    "worker": {"state_dir": "/state"},
    "probe": {"interval": 30},
}
GIVEN: Final = ("--endpoint", "gw04.example.net:40011", "--gateway-key", KEY, "--link-address", "fe80::4")
WELT: Final = ("--domain", "ffmuc_welt")


def config() -> Config:
    return parse(json.dumps(DOCUMENT), "test")


def chosen(*options: str) -> Choice:
    return choose(config(), parser().parse_args(["probe", *options]))


# --- options


def test_without_options_the_configuration_decides() -> None:
    assert chosen() == Choice(
        url="http://127.0.0.1:5001",
        keys=Path("/state/probe"),
        domains=list(config().domains),
        gateway="",
        endpoint=None,
        own_namespace=True,
        interval=30,
    )


def test_options_win() -> None:
    choice = chosen("--url", "https://b.example.net/", "--keys", "/keys", "--no-namespace", *WELT, "--gateway", "gw04")
    assert choice.url == "https://b.example.net"
    assert choice.keys == Path("/keys")
    assert [domain.name for domain in choice.domains] == ["ffmuc_welt"]
    assert not choice.own_namespace
    assert (choice.gateway, choice.endpoint) == ("gw04", None)


def test_a_domain_that_is_named_twice_is_one() -> None:
    assert [domain.name for domain in chosen(*WELT, "--domain", "ffmuc_city", *WELT).domains] == [
        "ffmuc_welt",
        "ffmuc_city",
    ]


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [("gw04:1", "gw04", 1), ("10.0.0.4:65535", "10.0.0.4", 65535), ("[2001:db8::4]:40011", "2001:db8::4", 40011)],
)
def test_an_endpoint_is_given(text: str, address: str, port: int) -> None:
    choice = chosen(*WELT, "--gateway", "gw04", "--endpoint", text, *GIVEN[2:])
    assert choice.endpoint == Endpoint(address, port, KEY, "fe80::4")


NEEDED_TOGETHER: Final = "--endpoint, --gateway-key, --link-address and --gateway are needed together"
NOT_USABLE: Final = (
    "--endpoint should be HOST:PORT, --gateway-key a WireGuard public key, --link-address an IPv6 address"
)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--domain", "ffmuc_x"), "--domain: 'ffmuc_x' is not one of ffmuc_welt, ffmuc_city"),
        ((*WELT, *GIVEN), NEEDED_TOGETHER),
        ((*WELT, "--gateway", "gw04", *GIVEN[:4]), NEEDED_TOGETHER),
        ((*WELT, "--gateway", "gw04", *GIVEN[2:]), NEEDED_TOGETHER),
        (("--gateway", "gw04", *GIVEN), "--endpoint is the endpoint of one domain: name it with --domain"),
        ((*WELT, "--gateway", "gw04", "--endpoint", "gw04", *GIVEN[2:]), NOT_USABLE),
        ((*WELT, "--gateway", "gw04", "--endpoint", "gw04:x", *GIVEN[2:]), NOT_USABLE),
        ((*WELT, "--gateway", "gw04", "--endpoint", "gw04:0", *GIVEN[2:]), NOT_USABLE),
        ((*WELT, "--gateway", "gw04", "--endpoint", ":1", *GIVEN[2:]), NOT_USABLE),
        ((*WELT, "--gateway", "gw04", *GIVEN[:2], "--gateway-key", "x", *GIVEN[4:]), NOT_USABLE),
        ((*WELT, "--gateway", "gw04", *GIVEN[:4], "--link-address", "fe80::4/64"), NOT_USABLE),
    ],
)
def test_options_that_do_not_fit_are_one_problem_in_words(
    options: tuple[str, ...], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError) as error:
        chosen(*options)
    assert error.value.problems == (problem,)

    file = tmp_path / "wgkex.yaml"
    file.write_text(json.dumps(DOCUMENT))
    # For a person and for systemd, status 2; for monitoring, 2 would be an outage.
    assert main(["probe", "--config", str(file), *options]) == 2
    assert capsys.readouterr() == ("", f"{problem}\n")
    assert main(["probe", "--once", "--config", str(file), *options]) == UNKNOWN
    assert capsys.readouterr() == (f"WGKEX UNKNOWN - {problem}\n", f"{problem}\n")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--url", "broker"), "argument --url: should be a URL such as"),
        (("--url", "http://user:SECRET@broker"), "argument --url: should be a URL such as"),
        (("--gateway", "gw/04"), "argument --gateway: should be letters, digits"),
        (("--gateway", ""), "argument --gateway: should be letters, digits"),
        (("--bogus",), "unrecognized arguments: --bogus"),
    ],
)
def test_a_wrong_command_line_is_unknown_to_monitoring(
    options: tuple[str, ...], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for once, status, line in (
        ((), 2, ""),
        (("--once",), UNKNOWN, "WGKEX UNKNOWN - the command line is wrong; see --help\n"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["probe", *once, *options])
        assert end.value.code == status
        output = capsys.readouterr()
        assert output.out == line
        assert problem in output.err
        assert "SECRET" not in output.err


def test_a_configuration_that_cannot_be_read_is_unknown_to_monitoring(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "missing.yaml"
    assert main(["probe", "--once", "--config", str(missing)]) == UNKNOWN
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith(f"WGKEX UNKNOWN - {missing}: does not exist")


def test_the_configuration_and_the_options_can_be_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "wgkex.yaml"
    file.write_text(json.dumps(DOCUMENT))
    assert main(["probe", "--check-config", "--config", str(file)]) == 0
    assert main(["probe", "--check-config", "--config", str(file), "--domain", "x"]) == 2
    assert capsys.readouterr().out == "The configuration is fine.\n"


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_asking_for_help_is_no_mistake(option: str) -> None:
    with pytest.raises(SystemExit) as end:
        main(["probe", "--once", option])
    assert end.value.code == 0


# --- the line


def done(domain: str, *seconds: float, failure: str = "it broke") -> Round:
    completed = dict(zip(PHASES, seconds, strict=False))
    return Round(domain, 0.0, "gw04.example.net", completed, "" if len(completed) == len(PHASES) else failure)


@pytest.mark.parametrize(
    ("rounds", "text", "numbers"),
    [
        (
            [done("welt", 0.012, 0.034, 0.2504)],
            "OK - welt through gw04.example.net: a tunnel after 0.3 s",
            "post=0.012s handshake=0.034s vxlan=0.250s",
        ),
        (
            [done("w", 0.5, 11.24, 12)],
            "WARNING - w through gw04.example.net: handshake took 11.2 s, vxlan took 12.0 s, where a node bears 10 s",
            "post=0.500s handshake=11.240s vxlan=12.000s",
        ),
        ([done("welt", 0.5)], "CRITICAL - welt: handshake failed: it broke", "post=0.500s"),
        ([done("welt")], "CRITICAL - welt: post failed: it broke", ""),
        (
            [done("a", 1, 2, 3), done("b", 1, 2, 4)],
            "OK - 2 domains: tunnels after 7.0 s at the most",
            "a_post=1.000s a_handshake=2.000s a_vxlan=3.000s b_post=1.000s b_handshake=2.000s b_vxlan=4.000s",
        ),
        (
            [done("a", 1, failure="no"), done("b", 1, 2, failure="no"), done("c", 1, 11, 1), done("d", failure="no")],
            "CRITICAL - 3 of 4 domains: a: handshake failed: no; b: vxlan failed: no; d: post failed: no",
            "a_post=1.000s b_post=1.000s b_handshake=2.000s c_post=1.000s c_handshake=11.000s c_vxlan=1.000s",
        ),
        (
            [done("a", 1, 2, 3), done("c", 1, 11, 1)],
            "WARNING - 1 of 2 domains: c through gw04.example.net: handshake took 11.0 s, where a node bears 10 s",
            "a_post=1.000s a_handshake=2.000s a_vxlan=3.000s c_post=1.000s c_handshake=11.000s c_vxlan=1.000s",
        ),
        ([done("a"), done("b")], "CRITICAL - a: post failed: it broke; b: post failed: it broke", ""),
    ],
    ids=range(8),
)
def test_the_line_is_that_of_the_worst_domain(rounds: list[Round], text: str, numbers: str) -> None:
    status, line = summary(rounds)
    assert {OK: "OK", WARNING: "WARNING", CRITICAL: "CRITICAL"}[status] == text.split(maxsplit=1)[0]
    measured = " ".join(f"{number};10;15;0" for number in numbers.split())
    assert line == (f"WGKEX {text} | {measured}" if numbers else f"WGKEX {text}")


def test_a_text_from_elsewhere_cannot_make_performance_data_or_a_second_line() -> None:
    _, line = summary([done("welt", failure="a | post=0s\nb\r\n\tc")])
    assert line == "WGKEX CRITICAL - welt: post failed: a / post=0s b c"


# --- where there is a failure before any tunnel


@pytest.fixture
def once(tmp_path: Path) -> Callable[[], tuple[int, str, str]]:
    """Runs `--once` against a port on which nothing listens: in a process of its own, since it sets up the logs."""

    def run() -> tuple[int, str, str]:
        file = tmp_path / "wgkex.yaml"
        file.write_text(json.dumps({**DOCUMENT, "worker": {"state_dir": str(tmp_path)}}))
        command = (sys.executable, "-m", "wgkex_ops", "probe", "--once", "--config", str(file))
        options = ("--url", "http://127.0.0.1:9", *WELT)
        done = subprocess.run((*command, *options), capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout, done.stderr

    return run


def test_a_broker_that_is_away_is_critical_and_nothing_else_is_printed(
    once: Callable[[], tuple[int, str, str]],
) -> None:
    why = "no response of the broker at http://127.0.0.1:9: Connection refused"
    assert once() == (CRITICAL, f"WGKEX CRITICAL - ffmuc_welt: post failed: {why}\n", "")


def test_keys_that_cannot_be_used_are_unknown(once: Callable[[], tuple[int, str, str]], tmp_path: Path) -> None:
    path = tmp_path / "probe" / f"ffmuc_welt.{time.time() * 1000:.0f}.key"
    path.parent.mkdir()
    path.write_text("broken\n")
    path.chmod(0o600)
    line = f"WGKEX UNKNOWN - {path} is not a WireGuard private key: remove it, and another one is made"
    assert once() == (UNKNOWN, f"{line}\n", "")
