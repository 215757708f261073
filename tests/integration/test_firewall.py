"""The firewall that docs/gateway.md shows, as nftables reads it."""

import re

from tests.helpers import ROOT
from tests.integration.loopback import run


def test_nftables_takes_the_block_for_gateways() -> None:
    [block] = re.findall(
        r"^```nftables\n(.*?)^```$", (ROOT / "docs" / "gateway.md").read_text(), re.MULTILINE | re.DOTALL
    )
    # It checks, and changes nothing; in a namespace of its own, it could not.
    run("unshare", "--net", "nft", "--check", "--file", "-", stdin=block)
