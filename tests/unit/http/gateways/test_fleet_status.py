"""What is concluded of the fleet from what was heard, and from what was not."""

import json

import pytest

from tests.helpers import WELT
from tests.unit.http.gateways.fleet import come_online
from wgkex_ops.broker import Broker
from wgkex_ops.config import parse
from wgkex_ops.http.gateways.fleet import fleet_status
from wgkex_ops.http.gateways.registry import Gateways
from wgkex_ops.metrics.build import new_registry
from wgkex_ops.model.fleet import FleetStatus, Problem, Severity


def status_of(gateways: Gateways, *listed: str, complete: bool = True) -> FleetStatus:
    return fleet_status(gateways, source="b1", domains=[WELT.name], listed=listed, complete=complete)


@pytest.mark.parametrize("listed", [(), ("gw01", "gw02")])
def test_only_what_is_listed_is_missed_as_such_after_a_reconnect(listed: tuple[str, ...]) -> None:
    gateways = Gateways(dict.fromkeys(listed, 1.0), [WELT.name])
    come_online(gateways, {"gw01": 1, "gw02": 2, "gw03": 3}, now=1.0)
    gateways.forget_before(2.0)
    come_online(gateways, {"gw01": 1}, now=3.0)
    found = status_of(gateways, *listed)
    missed = "unheard" if listed else "offline"
    assert [one.state for one in found.gateways] == ["online", missed, "offline"]
    texts = [problem.text for problem in found.problems]
    assert len(texts) == 2
    assert ("gw02 is listed under workers, and was not heard of" in texts) == bool(listed)
    assert "gw03 is offline: 'systemctl status wgkex-worker' there" in texts


def test_before_all_were_heard_nothing_follows_from_those_that_were_not() -> None:
    gateways = Gateways({"gw01": 1.0}, [WELT.name])
    assert [problem.severity for problem in status_of(gateways, "gw01").problems] == [2, 1]
    assert status_of(gateways, "gw01", complete=False).problems == ()


async def test_a_broker_that_has_never_reached_the_mqtt_server_does_not_say_that_all_are_offline() -> None:
    document = {"domains": [WELT.name], "domain_prefixes": ["ffmuc_"], "mqtt": {"broker_url": "127.0.0.1"}}
    status = Broker(parse(json.dumps(document), "test"), new_registry("broker")).status()
    text = "this broker: there is no connection with the MQTT server"
    assert (status.severity, status.problems) == (3, (Problem(Severity.UNKNOWN, text),))
