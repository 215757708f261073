"""What follows from a domain's seed, key and MTU."""

import pytest

from tests.helpers import KEY, WELT
from wgkex_ops.model.interfaces import DomainInterfaces, InterfaceOutcome, InterfaceState, vni_of_seed
from wgkex_ops.model.keys import PublicKey


@pytest.mark.parametrize(
    ("seed", "vni"),
    [
        # ffmuc_welt and ffmuc_muc_cty of site-ffm; computed with md5sum: printf 'gluon-mesh-vpn-vxlan%s1' SEED | md5sum
        ("1f0b31cecdf980317f453b162ac476ee09cf9997b03e684d4f2f484e75d9cd26", 4831583),
        ("a2e8fb0dfb713f6020b893f1c505cee46abb0e63928e8ff1c1fbe3377f56e150", 3836090),
        ("1F0B31CECDF980317F453B162AC476EE09CF9997B03E684D4F2F484E75D9CD26", 4831583),
    ],
)
def test_the_vni_is_that_of_the_nodes(seed: str, vni: int) -> None:
    assert vni_of_seed(seed) == vni


def test_address_and_mtu_follow() -> None:
    interfaces = DomainInterfaces(WELT, port=40011, vni=4831583, mtu=1406, public_key=PublicKey.parse(KEY))
    assert interfaces.address == PublicKey.parse(KEY).link_local
    assert interfaces.vxlan_mtu == 1336
    assert DomainInterfaces(WELT, port=40011, vni=4831583, mtu=1406, public_key=None).address is None


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (InterfaceOutcome("wg-welt"), InterfaceState.UNCHANGED),
        (InterfaceOutcome("wg-welt", changes=["up"]), InterfaceState.CHANGED),
        (InterfaceOutcome("wg-welt", created=True), InterfaceState.CREATED),
        (InterfaceOutcome("wg-welt", created=True, changes=["up"], problems=["has"]), InterfaceState.FAILED),
    ],
)
def test_one_word_for_an_outcome(outcome: InterfaceOutcome, state: InterfaceState) -> None:
    assert outcome.state == state
