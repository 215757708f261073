"""Stories of outages, in a small and in a large network: what of the rules fires, after how long, and what does not."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from alerts.rules import document
from alerts.settings import Settings
from tests.integration.loopback import run
from tests.network import DOMAINS, Network

# As promtool calculates the rules for hours of a thousand series.
pytestmark = pytest.mark.timeout(700)

SMALL: Final = (50, 3)
LARGE: Final = (20_000, 10)
# Before that, gateways have their peers for longer than alerts compare with.
FAULT: Final = 90
ANY: Final = '{alertstate="firing", service="wgkex", severity!="none"}'

Break = Callable[[Network], None]


def firing(alert: str, minute: int, labels: Mapping[str, str], over: str = "1m") -> dict[str, Any]:
    """What promtool is to check: an alert fires, or has fired, with these labels and with no other ones."""
    series = f'max_over_time(ALERTS{{alertstate="firing", alertname="{alert}"}}[{over}])'
    return _check(f"group by ({', '.join(labels)}) ({series})", minute, [labels])


def quiet(minute: int, selector: str = ANY) -> dict[str, Any]:
    """Nothing fires."""
    return _check(f"ALERTS{selector}", minute, ())


def _check(expression: str, minute: int, expected: Collection[Mapping[str, str]]) -> dict[str, Any]:
    samples = [
        {"labels": "{" + ", ".join(f'{name}="{value}"' for name, value in labels.items()) + "}", "value": 1}
        for labels in expected
    ]
    return {"expr": expression, "eval_time": f"{minute}m", "exp_samples": samples}


def check(
    folder: Path,
    networks: Collection[Network],
    minutes: int,
    checks: list[dict[str, Any]],
    settings: Settings | None = None,
) -> None:
    """Run networks that one Prometheus watches, and what promtool is to check."""
    for network in networks:
        network.run(minutes)
    case = {
        "interval": "1m",
        "input_series": [series for network in networks for series in network.input_series()],
        "promql_expr_test": checks,
    }
    (folder / "rules.yaml").write_text(document(settings or Settings()))
    (folder / "case.yaml").write_text(
        yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [case]})
    )
    assert "SUCCESS" in run("promtool", "test", "rules", str(folder / "case.yaml"), within=600)


@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["50 nodes", "20000 nodes"])
def test_an_hour_of_health_fires_nothing(size: tuple[int, int], tmp_path: Path) -> None:
    check(tmp_path, [Network(*size)], 260, [quiet(minute) for minute in range(200, 260)])


def close_one_gateway(network: Network) -> None:
    network.close_port(network.gateways[0])


def close_one_domain(network: Network) -> None:
    network.close_port(network.gateways[0], DOMAINS[0])


def close_all(network: Network) -> None:
    for gateway in network.gateways:
        network.close_port(gateway)


def break_firmware(network: Network) -> None:
    network.break_firmware(30)


def reboot_into_a_closed_firewall(network: Network) -> None:
    # In a small network there must be somebody who asks: one node every two minutes.
    network.churn = 0.6
    network.reboot(network.gateways[0], closed=True)


def kill_all_gateways(network: Network) -> None:
    for gateway in network.gateways:
        network.reboot(gateway, 1000)


@dataclass(frozen=True)
class Outage:
    """A fault, and the alert that reports it within so many minutes."""

    fault: Break
    alert: str
    within: int
    labels: Mapping[str, str] = field(default_factory=dict)


OUTAGES: Final = [
    Outage(close_one_gateway, "WgkexWorkerPeersLost", 15, {"instance": "gw01:9691"}),
    Outage(close_one_domain, "WgkexWorkerPeersLost", 15, {"instance": "gw01:9691", "domain": DOMAINS[0]}),
    Outage(close_all, "WgkexPeersLostEverywhere", 15),
    # Half of the nodes have it after 15 minutes.
    Outage(break_firmware, "WgkexPeersLostEverywhere", 30),
    Outage(break_firmware, "WgkexKeyRejectionsHigh", 45),
    Outage(reboot_into_a_closed_firewall, "WgkexWorkerPeersLost", 30, {"instance": "gw01:9691"}),
    Outage(kill_all_gateways, "WgkexPeersLostEverywhere", 20),
]


@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["50 nodes", "20000 nodes"])
@pytest.mark.parametrize("outage", OUTAGES, ids=lambda outage: f"{outage.fault.__name__} {outage.alert}")
def test_an_outage_is_reported_in_time(size: tuple[int, int], outage: Outage, tmp_path: Path) -> None:
    network = Network(*size)
    network.at(FAULT, lambda: outage.fault(network))

    checks = [quiet(FAULT), firing(outage.alert, FAULT + outage.within, outage.labels)]
    check(tmp_path, [network], FAULT + outage.within + 1, checks)


def reboot(network: Network) -> None:
    network.reboot(network.gateways[0])


def reboot_a_drained_gateway(network: Network) -> None:
    """Nodes ask, as in the outage above, and nobody may come back."""
    network.churn = 0.6
    network.gateways[0].draining = True
    network.reboot(network.gateways[0])


def stop_most_workers(network: Network) -> None:
    """Their tunnels stay, and their nodes have no reason to ask."""
    for gateway in network.gateways[: len(network.gateways) * 2 // 3]:
        network.cut_off_worker(gateway)


@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["50 nodes", "20000 nodes"])
@pytest.mark.parametrize(
    ("change", "known"),
    [(reboot, ""), (reboot_a_drained_gateway, ""), (stop_most_workers, "WgkexTargetDown")],
    ids=["a reboot", "a reboot of a gateway that drains", "workers that are stopped"],
)
def test_what_is_no_outage_of_nodes_is_none(size: tuple[int, int], change: Break, known: str, tmp_path: Path) -> None:
    network = Network(*size)
    network.at(FAULT, lambda: change(network))

    selector = ANY.replace("}", f', alertname!="{known}"}}')
    check(tmp_path, [network], FAULT + 100, [quiet(minute, selector) for minute in range(FAULT, FAULT + 100, 5)])


def stop_brokers(network: Network) -> None:
    network.brokers_answer = False


def stop_mqtt(network: Network) -> None:
    network.mqtt = False


def forget_brokers(network: Network) -> None:
    network.discovered.remove("wgkex-broker")


def forget_everything(network: Network) -> None:
    network.discovered.clear()


def stop_workers(network: Network) -> None:
    for gateway in network.gateways:
        network.cut_off_worker(gateway)


@pytest.mark.parametrize(
    ("fault", "alerts"),
    [
        (stop_brokers, ["WgkexBrokerDown"]),
        (stop_mqtt, ["WgkexMQTTDown"]),
        (forget_brokers, ["WgkexBrokerAbsent"]),
        (forget_everything, ["WgkexBrokerAbsent", "WgkexWorkerAbsent"]),
        (stop_workers, ["WgkexNoWorkersOnline", "WgkexKeyErrorBudgetBurn"]),
        (break_firmware, ["WgkexPeersLostEverywhere", "WgkexKeyRejectionsHigh"]),
        (close_one_gateway, ["WgkexWorkerPeersLost", "WgkexHandshakesStale"]),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_two_sites_do_not_hide_each_other(fault: Break, alerts: list[str], tmp_path: Path) -> None:
    # The healthy one is as large, and has hosts of the same names.
    broken, healthy = Network(*SMALL, cluster="muc"), Network(*SMALL, cluster="ulm")
    broken.at(FAULT, lambda: fault(broken))

    after = FAULT + 45
    checks = [
        quiet(FAULT),
        # Nothing without a site, and nothing of the other one.
        _check(f"group by (cluster) (max_over_time(ALERTS{ANY}[45m]))", after, [{"cluster": "muc"}]),
        *(firing(alert, after, {"cluster": "muc"}, over="45m") for alert in alerts),
    ]
    check(tmp_path, [broken, healthy], after + 1, checks, Settings(cluster="cluster"))
