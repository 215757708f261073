"""What is expected of a key that was submitted."""

import base64
from typing import Any

from tests.integration.inprocess import RunningWorker
from tests.integration.loopback import Answer, eventually_answered
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey

OK = {"Message": "OK"}


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
