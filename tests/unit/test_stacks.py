"""The page about other monitoring stacks names what is there."""

import re
import shlex
from typing import Final

from tests.helpers import ROOT

TEXT: Final = (ROOT / "docs" / "stacks.md").read_text()


def test_every_file_and_folder_that_is_named_is_there() -> None:
    named = set(re.findall(r"(?<![\w/.-])((?:alerts|deploy|grafana)/[\w./-]*[\w/])", TEXT))

    assert len(named) > 8
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_example_is_documented() -> None:
    folders = [path.name for path in (ROOT / "deploy").iterdir() if path.is_dir()]

    documented = {name for name in folders if f"deploy/{name}/" in TEXT}
    assert documented == {"kubernetes", "mixin", "telegraf", "icinga2", "nagios"}


def test_the_check_by_hand_is_the_one_of_both_examples() -> None:
    [line] = re.findall(r"^/usr/lib/nagios/plugins/check_http (.*)$", TEXT, re.MULTILINE)
    [nagios] = re.findall(r"\$USER1\$/check_http (.*)$", (ROOT / "deploy/nagios/wgkex.cfg").read_text(), re.MULTILINE)
    icinga = (ROOT / "deploy/icinga2/wgkex.conf").read_text()

    by_hand = shlex.split(line)
    assert by_hand == shlex.split(nagios.replace("$HOSTADDRESS$", "127.0.0.1").replace("$ARG1$", "9690"))
    for option, variable in (("-I", "wgkex_address"), ("-u", "http_uri"), ("-e", "http_expect")):
        assert f'vars.{variable} = "{by_hand[by_hand.index(option) + 1]}"' in icinga
    assert by_hand[-1] == "-B"
    assert '"-B" = { }' in icinga
