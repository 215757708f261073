"""A real interface that is deleted and created again, and the alerts about it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from alerts.rules import document
from alerts.settings import Settings
from tests.kernel.lab import Namespace
from tests.kernel.network import (
    BROKER_METRICS_PORT,
    DOMAIN,
    WORKER_METRICS_PORT,
    create_tunnel,
    eventually,
    new_key_pair,
    running,
    running_network,
)

# Time runs thirty times faster than in the shipped rules, and windows still have room for scrapes under emulation.
RULES: Final = Settings(pace=1 / 30, shortest_window="10s")
ALERTMANAGER_PORT: Final = 9093


def firing(host: Namespace) -> set[tuple[str, str]]:
    """Names of the alerts that Alertmanager has, with the interface where there is one."""
    url = f"http://127.0.0.1:{ALERTMANAGER_PORT}"
    alerts = json.loads(host.run("amtool", "--alertmanager.url", url, "alert", "query", "--output", "json"))
    return {(alert["labels"]["alertname"], alert["labels"].get("interface", "")) for alert in alerts}


@pytest.mark.timeout(1800)
def test_interface_that_is_deleted_is_an_alert_until_it_is_back(
    add_namespace: Callable[[str], Namespace], tmp_path: Path
) -> None:
    prometheus = {
        "global": {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "2s"},
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
            for job, port in ((RULES.broker_job, BROKER_METRICS_PORT), (RULES.worker_job, WORKER_METRICS_PORT))
        ],
        "rule_files": [str(tmp_path / "rules.yml")],
        "alerting": {
            "alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{ALERTMANAGER_PORT}"]}]}],
        },
    }
    (tmp_path / "prometheus.yml").write_text(json.dumps(prometheus))
    (tmp_path / "rules.yml").write_text(document(RULES))
    (tmp_path / "alertmanager.yml").write_text(json.dumps({"route": {"receiver": "r"}, "receivers": [{"name": "r"}]}))

    with running_network(add_namespace, tmp_path) as network:
        gateway = network.gateway
        with (
            running(
                gateway.command(
                    *("prometheus-alertmanager", f"--config.file={tmp_path / 'alertmanager.yml'}"),
                    *(f"--web.listen-address=127.0.0.1:{ALERTMANAGER_PORT}", "--cluster.listen-address="),
                    f"--storage.path={tmp_path / 'alertmanager'}",
                )
            ),
            running(
                gateway.command(
                    *("prometheus", f"--config.file={tmp_path / 'prometheus.yml'}", "--rules.alert.resend-delay=5s"),
                    *("--web.listen-address=127.0.0.1:9090", f"--storage.tsdb.path={tmp_path / 'prometheus'}"),
                )
            ),
        ):
            eventually(lambda: network.fetch(ALERTMANAGER_PORT, "/-/ready"), "an Alertmanager that is ready")
            eventually(lambda: firing(gateway) == {("WgkexWatchdog", "")}, "the watchdog and nothing else")

            # The VXLAN interface is deleted with the one below it.
            gateway.run("ip", "link", "delete", DOMAIN.wg)
            gone = {("WgkexInterfaceDown", DOMAIN.wg), ("WgkexInterfaceDown", DOMAIN.vx)}
            eventually(lambda: firing(gateway) >= gone, "an alert for each interface")

            gateway.run("ip", "link", "delete", "bat0")
            create_tunnel(gateway, *new_key_pair(gateway), 40011)
            eventually(lambda: firing(gateway) == {("WgkexWatchdog", "")}, "the end of all alerts but the watchdog")
