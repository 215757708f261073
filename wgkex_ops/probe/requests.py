"""How the canary gets a gateway: from the broker's choice, or one that the operator names."""

from collections import Counter
from typing import Final, Protocol

from wgkex_ops.bus.messages import Endpoint
from wgkex_ops.errors import RoundFailedError
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey
from wgkex_ops.probe.post import parse_version_1, parse_version_2, post_key
from wgkex_ops.probe.rounds import Gateway

# A broker that names ever more gateways is asked no more.
_GATEWAYS_LIMIT: Final = 16
# Rounds from one search for gateways that the canary does not know to the next one: an hour, usually.
_EXPLORE_EVERY: Final = 60


class Requests(Protocol):
    """Submits a key, and returns the gateway that the canary goes to; raises RoundFailedError."""

    async def __call__(self, domain: Domain, key: PublicKey) -> Gateway: ...


class ChosenGateway:
    """Version 2: the broker chooses. The gateway's name is the Address that nodes get.

    A broker names another gateway to a key that asks again. So the canary can ask until it gets the one that it has not
    tried for longest; with old brokers, which always name the best one, it stays with that.

    Args:
        url: of the broker.
        goes_around: whether it does so.
    """

    def __init__(self, url: str, *, goes_around: bool) -> None:
        self._url = url
        self._goes_around = goes_around
        # By domain: how many rounds there were, and the gateways, the one that was tried last at the end.
        self._rounds: Counter[str] = Counter()
        self._gateways: dict[str, list[str]] = {}

    async def __call__(self, domain: Domain, key: PublicKey) -> Gateway:
        """Submit the key."""
        endpoint = await self._ask(domain, key)
        named = {endpoint.address: endpoint}
        if self._goes_around:
            await self._ask_again(domain, key, named)
        known = self._gateways.get(domain.name, [])
        order = [*(name for name in named if name not in known), *known]
        name = next(name for name in order if name in named)
        self._gateways[domain.name] = [*(other for other in order if other != name), name]
        self._rounds[domain.name] += 1
        return Gateway(name, named[name])

    async def _ask_again(self, domain: Domain, key: PublicKey, named: dict[str, Endpoint]) -> None:
        """Ask until the gateway that was not tried for longest is named, or a new one; now and then until all are."""
        known = self._gateways.get(domain.name, [])
        explores = self._rounds[domain.name] % _EXPLORE_EVERY == 0
        while len(named) < _GATEWAYS_LIMIT:
            latest = next(reversed(named))
            if not explores and (latest == known[0] or latest not in known):
                return
            try:
                endpoint = await self._ask(domain, key)
            except RoundFailedError:
                # To be asked so often is no duty of a broker, and the first response is good enough.
                return
            if endpoint.address in named:
                # That were all. Others that are known are not named any more.
                self._gateways[domain.name] = [name for name in known if name in named]
                return
            named[endpoint.address] = endpoint

    async def _ask(self, domain: Domain, key: PublicKey) -> Endpoint:
        return parse_version_2(await post_key(self._url, 2, domain.name, key, canary=True))


class Endpoints(Protocol):
    """Knows how a gateway is reached in each domain; raises RoundFailedError if it does not."""

    async def find(self, domain: Domain) -> Endpoint: ...


class NamedGateway:
    """Version 1, which installs the key on all gateways; the canary goes to one of them.

    Args:
        url: of the broker.
        name: of the gateway.
        endpoints: how it is reached.
    """

    def __init__(self, url: str, name: str, endpoints: Endpoints) -> None:
        self._url = url
        self._name = name
        self._endpoints = endpoints

    async def __call__(self, domain: Domain, key: PublicKey) -> Gateway:
        """Submit the key."""
        parse_version_1(await post_key(self._url, 1, domain.name, key, canary=True))
        return Gateway(self._name, await self._endpoints.find(domain))


class GivenEndpoint:
    """The operator has given it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def find(self, domain: Domain) -> Endpoint:  # noqa: ARG002  there is one domain only
        """The endpoint."""
        return self._endpoint
