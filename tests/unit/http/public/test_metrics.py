"""How requests on the public listener are counted."""

import random
import re

from tests.helpers import moved, request, samples, send
from tests.unit.http.public.application import Broker, submission
from wgkex_ops.errors import BusError
from wgkex_ops.http.public.app import PATH_V1, PATH_V2
from wgkex_ops.http.public.responses import REASONS
from wgkex_ops.metrics.broker import FAILURE_REASONS, REJECTION_REASONS


async def test_whatever_is_asked_for_there_are_only_so_many_series(broker: Broker) -> None:
    seeded = random.Random(1)
    methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "MKCOL", "LOCK"]
    before = samples(broker.registry)
    for number in range(1000):
        method = seeded.choice(methods)
        path = f"/{seeded.randbytes(seeded.randrange(20)).hex()}/{number}"
        answer = await send(broker.listen, request(method, path), head_only=method == "HEAD")
        assert answer.status == 404
    after = samples(broker.registry)
    assert after.keys() == before.keys()
    labels = {name for name in after if name.startswith("wgkex_broker_http_requests_total")}
    for name in labels:
        assert re.search(
            r'code="(200|400|403|404|405|413|429|503)",handler="(/api|/api/v[12]/wg/key/exchange|unknown)"', name
        )
        assert re.search(r'method="(GET|HEAD|POST|PUT|DELETE|PATCH|OPTIONS|unknown)"', name)
    total = moved(before, after)
    counted = sum(change for name, change in total.items() if name.startswith("wgkex_broker_http_requests_total"))
    assert counted == 1000


async def test_requests_are_counted_by_method_route_and_code(broker: Broker) -> None:
    before = samples(broker.registry)
    await send(broker.listen, request("POST", PATH_V1, submission()))
    await send(broker.listen, request("POST", PATH_V2, b""))
    await send(broker.listen, request("GET", PATH_V2))
    await send(broker.listen, request("GET", "/nothing"))
    changes = {
        name: change
        for name, change in moved(before, samples(broker.registry)).items()
        if name.startswith(("wgkex_broker_http_requests_total", "wgkex_broker_http_request_duration_seconds_count"))
    }
    assert changes == {
        f'wgkex_broker_http_requests_total{{code="200",handler="{PATH_V1}",method="POST"}}': 1.0,
        f'wgkex_broker_http_requests_total{{code="400",handler="{PATH_V2}",method="POST"}}': 1.0,
        'wgkex_broker_http_requests_total{code="405",handler="unknown",method="GET"}': 1.0,
        'wgkex_broker_http_requests_total{code="404",handler="unknown",method="GET"}': 1.0,
        f'wgkex_broker_http_request_duration_seconds_count{{handler="{PATH_V1}"}}': 1.0,
        f'wgkex_broker_http_request_duration_seconds_count{{handler="{PATH_V2}"}}': 1.0,
        'wgkex_broker_http_request_duration_seconds_count{handler="unknown"}': 2.0,
    }


def test_every_reason_that_is_counted_is_one_of_an_error_object() -> None:
    assert {REASONS[reason] for reason in REJECTION_REASONS} == {400, 403, 413, 429}
    assert {REASONS[reason] for reason in FAILURE_REASONS} == {503}
    bus_errors: list[type[BusError]] = [BusError, *BusError.__subclasses__()]
    assert {error.reason for error in bus_errors} == set(FAILURE_REASONS)
