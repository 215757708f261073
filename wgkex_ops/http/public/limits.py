"""How much of the broker one client network, one key and one domain may use: token buckets. No I/O.

Each limit is own code, and not that of a library such as `limits`: a bucket is one number, and to take a token from it
costs less than to look up a strategy and a storage.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from time import monotonic
from typing import Final

from wgkex_ops.config.limits import Bucket, LimitsConfig
from wgkex_ops.http.public.responses import RejectedError
from wgkex_ops.model.domains import Domain
from wgkex_ops.model.keys import PublicKey

# Buckets of one kind, at about 200 bytes each: more than the nodes of the largest network, and the networks that they
# come from. An abuser with more of them displaces the ones that were used longest ago, and gains nothing but full ones.
CAPACITY: Final = 50_000


class RateLimitedError(RejectedError):
    """A request that exceeds a limit.

    Attributes:
        limit: a value of the metric `wgkex_broker_rate_limited_total`'s label.
    """

    def __init__(self, limit: str, message: str, domain: Domain | None = None) -> None:
        super().__init__("rate_limited", message, domain)
        self.limit = limit


class TokenBuckets:
    """Buckets of one size, one for each owner. A bucket that nobody has taken from is full.

    A bucket is kept as the moment at which it will be full again: all others follow from that.

    Args:
        size: of each of them.
        clock: seconds, never set back.
    """

    def __init__(self, size: Bucket, clock: Callable[[], float]) -> None:
        self._seconds_per_token = 60.0 / size.per_minute
        self._depth = (size.burst - 1) * self._seconds_per_token
        self._clock = clock
        # The one that was used longest ago comes first. A plain dict looks for it behind all that it has deleted.
        self._full_at: OrderedDict[Hashable, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, owner: Hashable) -> bool:
        """Take a token from an owner's bucket, and return whether there was one."""
        now = self._clock()
        full_at = max(now, self._full_at.pop(owner, now))
        allowed = full_at - now <= self._depth
        if len(self._full_at) >= CAPACITY:
            self._full_at.popitem(last=False)
        self._full_at[owner] = full_at + self._seconds_per_token if allowed else full_at
        return allowed


class Limits:
    """All limits of the public listener; each method takes one token, and raises if there is none.

    Args:
        config: how large the buckets are.
        clock: seconds, never set back.
    """

    def __init__(self, config: LimitsConfig, clock: Callable[[], float] = monotonic) -> None:
        self._networks = TokenBuckets(config.network, clock)
        self._all = TokenBuckets(config.broker, clock)
        self._keys = TokenBuckets(config.key, clock)
        self._new_of_networks = TokenBuckets(config.new_keys_per_network, clock)
        self._new_of_domains = TokenBuckets(config.new_keys, clock)

    def request(self, network: bytes) -> None:
        """A client network sends a request, of which nothing else is known yet.

        Raises:
            RateLimitedError: there are too many from it, or in all.
        """
        if not self._networks.take(network):
            raise RateLimitedError("network", "there are too many requests from this address; try again in a minute")
        if not self._all.take(None):
            raise RateLimitedError("broker", "there are too many requests; try again in a minute")

    def key(self, domain: Domain, key: PublicKey) -> None:
        """Somebody asks for a key.

        Raises:
            RateLimitedError: it is asked for too often.
        """
        if not self._keys.take((domain.name, key.raw)):
            raise RateLimitedError("key", "there are too many requests for this key; try again in a minute", domain)

    def new_key(self, domain: Domain, network: bytes) -> None:
        """A client network asks for a key that nobody has asked for lately.

        Raises:
            RateLimitedError: there are too many such keys from there, or of the domain.
        """
        if not self._new_of_networks.take(network):
            raise RateLimitedError("new_keys", "there are too many new keys from this address; try again later", domain)
        if not self._new_of_domains.take(domain.name):
            raise RateLimitedError("new_keys", "there are too many new keys of this domain; try again later", domain)
