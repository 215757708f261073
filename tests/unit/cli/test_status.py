"""What people and monitoring see of `wgkex-ops status`."""

import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from wgkex_ops.__main__ import main
from wgkex_ops.cli.status_report import nagios_line, status_tables
from wgkex_ops.model.fleet import (
    BrokerStatus,
    DomainStatus,
    FleetStatus,
    GatewayState,
    GatewayStatus,
    Problem,
    Severity,
    find_problems,
)

NOW = 1_000_000.0


def gateway(name: str, state: GatewayState = "online", *, listed: bool = True, version: str = "0.1.0") -> GatewayStatus:
    return GatewayStatus(
        name=name,
        state=state,
        peers=1234,
        target=1200.4,
        confirming=True,
        listed=listed,
        version=version,
        last_heard=NOW - 75,
        refused=("ffmuc_welt",) if state == "partly" else (),
    )


def fleet(*gateways: GatewayStatus, takers: int = 1) -> FleetStatus:
    domains = (DomainStatus(name="ffmuc_welt", gateways=takers, peers=1234),)
    problems = find_problems(gateways, domains)
    return FleetStatus(
        source="broker01",
        at=NOW,
        severity=max((one.severity for one in problems), default=0),
        problems=tuple(problems),
        brokers=(BrokerStatus(name="broker01", online=True, version="0.1.0"),),
        gateways=gateways,
        domains=domains,
    )


def shown(status: FleetStatus, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False, markup=False, emoji=False)
    console.print(status_tables(status, width), soft_wrap=False)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("one", "severity", "text"),
    [
        (gateway("gw"), 0, ""),
        (gateway("gw", "draining"), 0, ""),
        (gateway("gw", "offline"), 1, "gw is offline"),
        (gateway("gw", "unheard"), 1, "gw is listed under workers, and was not heard of"),
        (gateway("gw", "silent"), 1, "gw confirms no keys"),
        (gateway("gw", "partly"), 1, "gw takes no nodes of ffmuc_welt"),
        (gateway("gw", listed=False), 1, "gw is not listed under workers, so it weighs 1"),
    ],
)
def test_each_state_of_a_gateway(one: GatewayStatus, severity: int, text: str) -> None:
    status = fleet(one, gateway("other"))
    assert status.severity == severity
    assert [problem.text.startswith(text) for problem in status.problems] == [True] * severity


def test_no_gateway_and_a_domain_without_one_are_critical() -> None:
    assert fleet(takers=0).severity == 2
    assert nagios_line(fleet(takers=0)).startswith("WGKEX CRITICAL - no gateway is online")
    assert [one.text for one in fleet(gateway("gw"), takers=0).problems] == [
        "ffmuc_welt has no gateway: its nodes get no tunnel"
    ]
    assert fleet(gateway("gw", "offline"), takers=0).severity == 2


def test_a_bar_in_a_name_does_not_begin_the_performance_data() -> None:
    assert nagios_line(fleet(gateway("a|b", "offline"), gateway("gw"))).count("|") == 1


def test_the_table_goes_without_columns_before_it_is_folded() -> None:
    usual = shown(fleet(gateway("gw01.example.net")), 80)
    for heading in ("Confirms", "Version", "Heard"):
        assert heading in usual
    long_name = "gw-munich-03.backbone.infrastructure.example.net"
    text = shown(fleet(gateway(long_name, "silent", version="0.1.0rc1+g0123456")), 80)
    assert long_name in text
    assert "Target" in text
    assert "Confirms" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert max(map(len, shown(fleet(gateway(long_name)), 40).splitlines())) <= 40


def test_a_fleet_that_is_not_known_yet_has_no_figures() -> None:
    problem = Problem(Severity.UNKNOWN, "this broker: it is not known yet which gateways there are")
    status = msgspec.structs.replace(fleet(takers=0), severity=3, problems=(problem,))
    assert nagios_line(status) == f"WGKEX UNKNOWN - {problem.text}"
    text = shown(status, 80)
    assert text.startswith("UNKNOWN: which gateways are online is not known yet\n")
    assert f"UNKNOWN: {problem.text}" in text


@contextmanager
def serving(status: int, **headers: str) -> Iterator[tuple[str, list[str | None]]]:
    """An HTTP server that answers all the same; its address, and the passwords that it gets."""
    passwords: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            passwords.append(self.headers["Authorization"])
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            """Be quiet."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}", passwords
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_password_goes_to_nobody_but_who_was_named(
    status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "wgkex.yaml"
    config.write_text(
        json.dumps({"domains": ["ffmuc_welt"], "domain_prefixes": ["ffmuc_"], "mqtt": {"broker_url": "x"}})
    )
    with (
        serving(200) as (elsewhere, theirs),
        serving(status, Location=f"http://{elsewhere}/status.json") as (named, ours),
    ):
        assert main(["status", "--config", str(config), "--broker-url", f"http://me:secret@{named}"]) == 2
    assert (len(ours), theirs) == (1, [])
    errors = capsys.readouterr().err
    assert errors.startswith(f"{named}: status {status}; it redirects to http://{elsewhere}/status.json, which is not")
    assert "secret" not in errors
