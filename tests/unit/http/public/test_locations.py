"""What a node says about the location of its gateway, and what it gets."""

import pytest
import structlog

from tests.helpers import DOMAINS, KEY, OTHER_KEY, WELT, key, request, send, until
from tests.unit.http.public.application import PATHS, Broker, accepted, submission
from wgkex_ops.bus.messages import ConnectedPeers, Endpoint, WorkerData, WorkerStatus
from wgkex_ops.http.public.app import PATH_V1, PATH_V2
from wgkex_ops.http.public.submission import BODY_LIMIT, parse_submission

# --- which location a request names


@pytest.mark.parametrize(
    ("body", "header", "expected"),
    [
        ({}, None, None),
        ({"location": "munich"}, None, "munich"),
        ({"location": "Munich-2"}, None, "munich-2"),
        ({}, "munich", "munich"),
        ({}, "MUNICH", "munich"),
        # The body decides, if it says anything.
        ({"location": "munich"}, "berlin", "munich"),
        ({"location": None}, "berlin", "berlin"),
        ({"location": ""}, "berlin", None),
        ({"location": 1}, "berlin", None),
        ({"location": "the north"}, "berlin", None),
        # As a member it is one of the outermost object.
        ({"data": {"location": "munich"}}, None, None),
        ({"Location": "munich"}, None, None),
        ({}, "", None),
        ({}, "munich, berlin", None),
        ({}, "x" * 65, None),
        ({}, "x" * 64, "x" * 64),
        ({}, "m\udcc3\udcbcnchen", None),
    ],
)
def test_location_of_a_submission(body: dict[str, object], header: str | None, expected: str | None) -> None:
    found = parse_submission(submission(**body), DOMAINS, header)
    assert (found.domain, str(found.key), found.location) == (WELT, KEY, expected)


@pytest.mark.parametrize(
    "value",
    [
        True,
        False,
        0,
        1.5,
        float("nan"),
        [],
        ["munich"],
        {},
        {"munich": "munich"},
        "",
        "m\u00fcnich",
        "\ud800",
        "a" * 65,
    ],
    ids=repr,
)
def test_member_that_is_no_location_counts_as_none(value: object) -> None:
    assert parse_submission(submission(location=value), DOMAINS).location is None


def test_huge_member_counts_as_none() -> None:
    body = submission(location="")
    body = body.replace(b'""', b'"' + b"x" * (BODY_LIMIT - len(body)) + b'"')
    assert len(body) == BODY_LIMIT
    assert parse_submission(body, DOMAINS).location is None


# --- over HTTP


@pytest.fixture
async def two_gateways(broker: Broker) -> Broker:
    """gw04 is in the north and has 7 peers, gw05 is in the south and has as many."""
    for event in (
        WorkerStatus("gw05", online=True),
        WorkerData("gw05", WELT.name, Endpoint("gw05.example.net", 40012, OTHER_KEY, "fe80::5")),
        ConnectedPeers("gw05", WELT.name, 7),
    ):
        broker.gateways.update(event, 0.0)
    return broker


def preferences(broker: Broker) -> dict[str, float | None]:
    name = "wgkex_broker_location_preferences_total"
    return {result: broker.registry.get_sample_value(name, {"result": result}) for result in ("met", "unmet")}


async def gateway_for(broker: Broker, number: int, *headers: str, **members: object) -> str:
    body = submission(public_key=str(key(number)), **members)
    answer = await send(broker.listen, request("POST", PATH_V2, body, *headers))
    assert answer.status == 200
    assert answer.json.keys() == {"Endpoint"}
    address: str = answer.json["Endpoint"]["Address"]
    return address.removesuffix(".example.net")


async def test_node_gets_a_gateway_of_its_location_while_the_balance_allows(two_gateways: Broker) -> None:
    assert preferences(two_gateways) == {"met": 0, "unmet": 0}
    # It takes less than 7 * 1.1 + 1 peers to be preferred: 7, and 8, but not 9.
    found = [await gateway_for(two_gateways, number, location="South") for number in range(3)]
    assert found == ["gw05", "gw05", "gw04"]
    assert preferences(two_gateways) == {"met": 2, "unmet": 1}


async def test_header_names_the_location_if_the_body_does_not(two_gateways: Broker) -> None:
    assert await gateway_for(two_gateways, 1, "X-Location: SOUTH") == "gw05"
    two_gateways.gateways.update(ConnectedPeers("gw05", WELT.name, 7), 1.0)
    assert await gateway_for(two_gateways, 2, "x-location:south ", location="north") == "gw04"
    assert preferences(two_gateways) == {"met": 2, "unmet": 0}


@pytest.mark.parametrize(
    ("headers", "members"),
    [
        ((), {}),
        ((), {"location": "east"}),
        ((), {"location": 5}),
        ((), {"location": ["south"]}),
        ((), {"location": "south" * 700}),
        (("X-Location: east",), {}),
        (("X-Location: south, south",), {}),
        (("X-Location: " + "south" * 190,), {}),
        (("X-Location:",), {}),
        (("X-Location: south",), {"location": False}),
    ],
    ids=("nothing", "unknown", "number", "list", "huge", "header unknown", "two", "header huge", "empty", "body first"),
)
async def test_what_is_no_location_of_a_gateway_changes_nothing(
    two_gateways: Broker, no_tracebacks: None, headers: tuple[str, ...], members: dict[str, object]
) -> None:
    assert await gateway_for(two_gateways, 1, *headers, **members) == "gw04"
    assert preferences(two_gateways) == {"met": 0, "unmet": 0}
    assert two_gateways.moved() == accepted("v2")


@pytest.mark.parametrize("location", ["south", 5, "south" * 700])
async def test_version_1_ignores_locations(two_gateways: Broker, location: object) -> None:
    body = submission(location=location)
    answer = await send(two_gateways.listen, request("POST", PATH_V1, body, "X-Location: south"))
    assert (answer.status, answer.json) == (200, {"Message": "OK"})
    assert preferences(two_gateways) == {"met": 0, "unmet": 0}
    assert two_gateways.moved() == accepted("v1")


async def test_node_that_comes_back_is_sent_to_another_location(two_gateways: Broker) -> None:
    assert [await gateway_for(two_gateways, 1, location="south") for _ in range(3)] == ["gw05", "gw04", "gw05"]
    assert preferences(two_gateways) == {"met": 2, "unmet": 1}


async def test_only_location_that_takes_no_nodes_is_unmet(two_gateways: Broker) -> None:
    two_gateways.gateways.update(WorkerStatus("gw05", online=False), 1.0)
    assert await gateway_for(two_gateways, 1, location="south") == "gw04"
    assert preferences(two_gateways) == {"met": 0, "unmet": 1}


@pytest.mark.parametrize("version", [1, 2])
async def test_no_log_line_has_the_location_of_a_node(two_gateways: Broker, version: int) -> None:
    with structlog.testing.capture_logs() as events:
        for body in (submission(location="south"), submission(public_key="x", location="south")):
            await send(two_gateways.listen, request("POST", PATHS[f"v{version}"], body, "X-Location: south"))
        # Lines are written in batches.
        await until(lambda: {event["event"] for event in events} >= {"key_accepted", "key_rejected"})
    assert "south" not in str(events)
