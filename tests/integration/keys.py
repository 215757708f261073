"""Submitting keys, and what is expected of them."""

import base64
from collections.abc import Mapping
from typing import Any

from tests.integration.inprocess import RunningWorker
from tests.integration.loopback import Answer, eventually_answered
from wgkex_ops.config import Listen
from wgkex_ops.demo.routers import post_key
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey

OK = {"Message": "OK"}


async def submit_like_a_router(
    address: str, version: int, domain: str, key: PublicKey
) -> tuple[int, Mapping[str, Any]]:
    host, _, port = address.rpartition(":")
    return await post_key(Listen(host=host, port=int(port)), version, domain, key)


async def installed(worker: RunningWorker, domain: Domain, key: PublicKey) -> None:
    await eventually_answered(lambda: worker.has(domain, key), f"{key} installed")


async def expected_endpoint(worker: RunningWorker, domain: Domain, name: str = "gw01") -> dict[str, Any]:
    """What a node gets: all of it text, the address bare."""
    state = await worker.state(domain)
    return {
        "Address": f"{name}.example.net",
        "Port": str(state.listen_port),
        "AllowedIPs": [state.link_address],
        "PublicKey": base64.b64encode(state.public_key).decode(),
    }


def failure_of(answer: Answer) -> tuple[int, str]:
    """Status and reason of an error object."""
    if answer.status == 503:
        assert int(answer.headers["Retry-After"]) > 0
    return answer.status, answer.json["error"]["reason"]
