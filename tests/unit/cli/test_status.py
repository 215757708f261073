"""What people and monitoring see of `wgkex-ops status`."""

import io

import pytest
from rich.console import Console

from wgkex_ops.cli.status_report import nagios_line, status_tables
from wgkex_ops.model.fleet import (
    BrokerStatus,
    DomainStatus,
    FleetStatus,
    GatewayState,
    GatewayStatus,
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
