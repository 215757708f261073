"""Which client a request comes from, and which network that is."""

from ipaddress import ip_network

import pytest

from wgkex_ops.http.clients import TrustedProxies, network_of

PROXIES = TrustedProxies(ip_network(text) for text in ("127.0.0.0/8", "10.0.0.0/8", "fd00::/8"))


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "c0 00 02 01"),
        ("::ffff:192.0.2.1", "c0 00 02 01"),
        ("2001:db8:1:2ff:3::4", "20 01 0d b8 00 01 02"),
        ("2001:db8:1:200::", "20 01 0d b8 00 01 02"),
        ("fe80::1%eth0", "fe 80 00 00 00 00 00"),
    ],
)
def test_the_network_of_an_address(address: str, network: str) -> None:
    assert network_of(address) == bytes.fromhex(network)


@pytest.mark.parametrize("text", ["", "unknown", "192.0.2.1:80", "[2001:db8::1]", "192.0.2.999", "1\x00", "ä"])
def test_what_is_no_address_has_no_network(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        network_of(text)
    assert text not in PROXIES


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "real_ip", "client"),
    [
        ("192.0.2.1", "", "", "192.0.2.1"),
        # Anybody can send the headers.
        ("192.0.2.1", "198.51.100.1", "198.51.100.2", "192.0.2.1"),
        ("127.0.0.1", "", "", "127.0.0.1"),
        ("127.0.0.1", "192.0.2.1", "192.0.2.9", "192.0.2.1"),
        ("127.0.0.1", "", "2001:db8::1", "2001:db8::1"),
        ("::ffff:127.0.0.1", "192.0.2.1", "", "192.0.2.1"),
        # What the client has sent itself stands in front.
        ("127.0.0.1", "198.51.100.1, 192.0.2.1", "", "192.0.2.1"),
        ("127.0.0.1", "198.51.100.1, 192.0.2.1,10.0.0.1", "", "192.0.2.1"),
        # A node of a private range, behind a proxy of another one.
        ("127.0.0.1", "10.1.2.3", "", "10.1.2.3"),
        ("127.0.0.1", "10.1.2.4,10.1.2.3", "", "10.1.2.4"),
        # Not an address: the last one that is believed.
        ("127.0.0.1", "unknown", "", "127.0.0.1"),
        ("127.0.0.1", "192.0.2.1:4711, 10.0.0.1", "", "10.0.0.1"),
        ("127.0.0.1", ",", "", "127.0.0.1"),
        ("fd12::1", "2001:db8::1", "", "2001:db8::1"),
    ],
)
def test_the_client_of_a_request(peer: str, forwarded_for: str, real_ip: str, client: str) -> None:
    assert PROXIES.client(peer, forwarded_for, real_ip) == client


def test_nobody_is_believed_without_proxies() -> None:
    assert TrustedProxies([]).client("127.0.0.1", "192.0.2.1", "") == "127.0.0.1"
