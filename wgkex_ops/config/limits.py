"""The section of the limits: how much of the broker one client, one key and one domain may use."""

from typing import Annotated, Final

from pydantic import Field

from wgkex_ops.config.fields import Integer, Number
from wgkex_ops.config.section import Section

# Peers of a domain on one gateway: some times of what the largest networks have, and what a kernel handles well.
MAX_PEERS: Final = 25_000

_Burst = Annotated[Integer, Field(ge=1, le=1_000_000_000)]
_PerMinute = Annotated[Number, Field(ge=1, le=1_000_000_000)]


class Bucket(Section):
    """A token bucket.

    Attributes:
        burst: how many requests are served at once.
        per_minute: how many a minute in the long run.
    """

    burst: _Burst
    per_minute: _PerMinute


class _KeyBucket(Bucket):
    # A node asks by both versions once a minute, and may ask again at once.
    burst: _Burst = 6
    per_minute: _PerMinute = 4


class _NetworkBucket(Bucket):
    # A carrier has hundreds of nodes behind one address, and a reboot brings all of them back.
    burst: _Burst = 600
    per_minute: _PerMinute = 600


class _NewKeysOfNetworkBucket(Bucket):
    # As many nodes may be new after a reboot; in the long run nodes are bought, flashed, and there.
    burst: _Burst = 300
    per_minute: _PerMinute = 10


class _NewKeysBucket(Bucket):
    # All that a gateway has room for may come back within an hour.
    burst: _Burst = MAX_PEERS
    per_minute: _PerMinute = 400


class _BrokerBucket(Bucket):
    # Some times of what the nodes of the largest gateway send when it reboots.
    burst: _Burst = 10_000
    per_minute: _PerMinute = 60_000


class ConnectionLimits(Section):
    """How many connections may be open at the same time.

    Attributes:
        total: of all clients; fewer where the process may not have as many file descriptors.
        per_network: of each client network, but for load balancers.
    """

    # A connection of a node lasts for a second. Of these, a few tens of megabytes of memory at the most.
    total: Annotated[Integer, Field(ge=16, le=100_000)] = 2000
    per_network: Annotated[Integer, Field(ge=1, le=100_000)] = 200


class LimitsConfig(Section):
    """What a broker serves before it answers 429.

    Attributes:
        key: of each key of a domain.
        network: of each client network (an IPv4 address, a /56 of IPv6).
        new_keys_per_network: of each client network, keys that nobody has asked for in the last five minutes.
        new_keys: of each domain, the same.
        broker: of all clients together, after their networks' limits.
        connections: open at the same time.
    """

    key: _KeyBucket = _KeyBucket()
    network: _NetworkBucket = _NetworkBucket()
    new_keys_per_network: _NewKeysOfNetworkBucket = _NewKeysOfNetworkBucket()
    new_keys: _NewKeysBucket = _NewKeysBucket()
    broker: _BrokerBucket = _BrokerBucket()
    connections: ConnectionLimits = ConnectionLimits()
