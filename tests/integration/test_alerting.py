"""From a real breakage to the alert in the right place, and back: rules, Prometheus and Alertmanager as shipped."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from alerts.rules import document
from tests.helpers import CITY, ROOT
from tests.integration.loopback import eventually_answered
from tests.integration.servers import Bench
from tests.integration.watched import (
    ALERT_TIMEOUT,
    RULES,
    Watched,
    background,
    dashboards,
    flood,
    queries,
    watched_system,
    write_names,
)

pytestmark = pytest.mark.timeout(300)

# Where the shipped example of Alertmanager sends what.
PAGER, TICKETS, OUTSIDE = "pager", "tickets", "dead-mans-switch"


@pytest.fixture
def names(tmp_path: Path) -> Path:
    write_names(tmp_path / "names")
    return tmp_path / "names"


@pytest.fixture
async def watched(bench: Bench, names: Path) -> AsyncIterator[Watched]:
    async with watched_system(bench, names, canary=True) as watched:
        await watched.receiver.gets(OUTSIDE, "WgkexWatchdog", "firing")
        yield watched
        # The dead man's switch has never stopped.
        assert (OUTSIDE, "WgkexWatchdog", "resolved") not in watched.receiver.notifications


async def only_the_watchdog_fires(watched: Watched) -> None:
    """Wait until everything is well again."""

    async def calm() -> bool:
        return await watched.firing() == {"WgkexWatchdog"}

    await eventually_answered(calm, f"calm after {watched.receiver.notifications}", ALERT_TIMEOUT)


async def test_every_panel_and_every_recording_rule_has_data(watched: Watched) -> None:
    wanted = {
        f"{file}: {title}": expression
        for file, dashboard in dashboards().items()
        for title, expression in queries(dashboard)
    }
    groups = yaml.safe_load(document(RULES))["groups"]
    recorded = {rule["record"] for group in groups for rule in group["rules"] if "record" in rule}
    assert len(wanted) > 50
    assert len(recorded) > 10
    wanted |= {name: name for name in recorded}
    missing = dict(wanted)

    async def all_have_data() -> bool:
        for name, expression in list(missing.items()):
            if await watched.prometheus.query(expression):
                del missing[name]
        return not missing

    try:
        await eventually_answered(all_have_data, "data for everything", ALERT_TIMEOUT)
    except AssertionError:
        assert missing == {}
    # Healthy and under load, nothing fires.
    assert watched.receiver.alerts() == {"WgkexWatchdog"}


async def test_mqtt_server_that_stops_pages_once_and_inhibits_its_consequences(watched: Watched) -> None:
    await watched.mosquitto.stop()
    await watched.receiver.gets(PAGER, "WgkexMQTTDown", "firing")

    # Burning the budget is one as well, but its rule looks by itself whether the server is gone.
    consequences = {"WgkexMQTTDisconnected", "WgkexNoWorkersOnline"}

    async def consequences_are_inhibited() -> bool:
        return await watched.firing() >= consequences and await watched.alertmanager.suppressed() >= consequences

    await eventually_answered(consequences_are_inhibited, f"{consequences} inhibited", ALERT_TIMEOUT)
    assert watched.receiver.alerts() == {"WgkexWatchdog", "WgkexMQTTDown"}

    await watched.mosquitto.start()
    await watched.receiver.gets(PAGER, "WgkexMQTTDown", "resolved")
    await only_the_watchdog_fires(watched)
    # Not afterwards either: the cost of the outage has its own alert.
    assert watched.receiver.alerts() == {"WgkexWatchdog", "WgkexMQTTDown"}


async def test_worker_that_stops_pages_as_no_gateway_is_left(watched: Watched) -> None:
    await watched.stop_worker()
    await watched.receiver.gets(PAGER, "WgkexNoWorkersOnline", "firing")
    await watched.receiver.gets(TICKETS, "WgkexTargetDown", "firing")
    # Valid keys without a worker are our failure.
    await watched.receiver.gets(PAGER, "WgkexKeyErrorBudgetBurn", "firing")
    assert "WgkexMQTTDown" not in watched.receiver.alerts()

    await watched.start_worker()
    for receiver, alert in (
        (PAGER, "WgkexNoWorkersOnline"),
        (TICKETS, "WgkexTargetDown"),
        (PAGER, "WgkexKeyErrorBudgetBurn"),
    ):
        await watched.receiver.gets(receiver, alert, "resolved")


async def test_flood_of_nonsense_opens_a_ticket_and_pages_nobody(watched: Watched) -> None:
    async with background(flood(watched)):
        await watched.receiver.gets(TICKETS, "WgkexKeyRejectionsHigh", "firing")
        assert watched.receiver.alerts() == {"WgkexWatchdog", "WgkexKeyRejectionsHigh"}
    await watched.receiver.gets(TICKETS, "WgkexKeyRejectionsHigh", "resolved")
    assert {receiver for receiver, _, _ in watched.receiver.notifications} == {OUTSIDE, TICKETS}


async def test_interface_that_vanishes_pages_until_it_is_back(watched: Watched) -> None:
    watched.worker.dataplane.remove_interfaces(CITY)
    await watched.receiver.gets(PAGER, "WgkexInterfaceDown", "firing")

    async def both_are_named() -> bool:
        found = await watched.prometheus.query('ALERTS{alertname="WgkexInterfaceDown", alertstate="firing"}')
        return {dict(labels)["interface"] for labels in found} == {CITY.wg, CITY.vx}

    await eventually_answered(both_are_named, "an alert for each interface", ALERT_TIMEOUT)
    watched.worker.dataplane.create_interfaces(CITY)
    await watched.receiver.gets(PAGER, "WgkexInterfaceDown", "resolved")


def test_receivers_of_the_example_are_those_of_this_test() -> None:
    config = yaml.safe_load((ROOT / "alerts" / "alertmanager.yaml.example").read_text())
    assert {receiver["name"] for receiver in config["receivers"]} >= {PAGER, TICKETS, OUTSIDE}
