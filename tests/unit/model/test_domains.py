"""Names of domains and of their interfaces."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wgkex_ops.errors import InvalidDomainError
from wgkex_ops.model.domains import Domain, find_collisions, parse_domain


def domain(name: str) -> Domain:
    return parse_domain(name, ["ffmuc_", "ffdon_"])


@pytest.mark.parametrize(
    ("name", "prefixes", "wg", "vx"),
    [
        ("ffmuc_muc_cty", ["ffmuc_"], "wg-muc_cty", "vx-muc_cty"),
        ("ffdon_welt", ["ffmuc_", "ffdon_"], "wg-welt", "vx-welt"),
        # The first one that fits is cut off, not the longest, and only once.
        ("ffmuc_muc_cty", ["ffmuc_", "ffmuc_muc_"], "wg-muc_cty", "vx-muc_cty"),
        ("ffmuc_muc_cty", ["ffmuc_muc_", "ffmuc_"], "wg-cty", "vx-cty"),
        ("ff_ff_a", ["ff_"], "wg-ff_a", "vx-ff_a"),
        ("welt", [""], "wg-welt", "vx-welt"),
        # 15 bytes, the longest name of an interface.
        ("ffmuc_abcdefghijkl", ["ffmuc_"], "wg-abcdefghijkl", "vx-abcdefghijkl"),
        ("A-z_09", [""], "wg-A-z_09", "vx-A-z_09"),
    ],
)
def test_interfaces(name: str, prefixes: list[str], wg: str, vx: str) -> None:
    assert parse_domain(name, prefixes) == Domain(name=name, wg=wg, vx=vx)
    assert str(parse_domain(name, prefixes)) == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ffxyz_welt", "'ffxyz_welt' starts with none of domain_prefixes (ffmuc_, ffdon_)"),
        ("xffmuc_welt", "'xffmuc_welt' starts with none of domain_prefixes (ffmuc_, ffdon_)"),
        ("ffmuc_", "'ffmuc_' is nothing but a prefix: nothing is left to name the interfaces after"),
        (
            "ffmuc_abcdefghijklm",
            "'ffmuc_abcdefghijklm' needs the interface wg-abcdefghijklm, which is 16 bytes long; Linux allows 15",
        ),
        ("", "'' may only have letters, digits, '_' and '-'"),
        ("ffmuc_a/b", "'ffmuc_a/b' may only have letters, digits, '_' and '-'"),
        ("ffmuc_+", "'ffmuc_+' may only have letters, digits, '_' and '-'"),
        ("ffmuc_#", "'ffmuc_#' may only have letters, digits, '_' and '-'"),
        ("ffmuc_a b", "'ffmuc_a b' may only have letters, digits, '_' and '-'"),
        ("ffmuc_welt\n", "'ffmuc_welt\\n' may only have letters, digits, '_' and '-'"),
        ("ffmuc_wält", "'ffmuc_wält' may only have letters, digits, '_' and '-'"),
        ("ffmuc_..", "'ffmuc_..' may only have letters, digits, '_' and '-'"),
    ],
)
def test_names_that_are_refused(name: str, message: str) -> None:
    with pytest.raises(InvalidDomainError) as caught:
        domain(name)
    assert str(caught.value) == message


def test_without_prefixes_no_name_fits() -> None:
    with pytest.raises(InvalidDomainError, match=r"^'welt' starts with none of domain_prefixes \(empty\)$"):
        parse_domain("welt", [])


def test_prefixes_are_shown_without_control_characters() -> None:
    with pytest.raises(InvalidDomainError) as caught:
        parse_domain("welt", ["ffmuc_\n", "\x1b[31m"])
    assert str(caught.value) == r"'welt' starts with none of domain_prefixes (ffmuc_\n, \x1b[31m)"


@given(st.text() | st.from_regex(r"[a-z_/-]{1,20}", fullmatch=True), st.lists(st.text(max_size=4), max_size=3))
@example("ffmuc_welt", ["ffmuc_"])
@example("٤", [""])
def test_a_domain_is_possible_or_there_is_none(name: str, prefixes: list[str]) -> None:
    try:
        found = parse_domain(name, prefixes)
    except InvalidDomainError:
        return
    assert found.name == name
    assert re.fullmatch(r"wg-[A-Za-z0-9_-]{1,12}", found.wg)
    assert found.vx == "vx-" + found.wg[3:]
    assert name.endswith(found.wg[3:])


def test_collisions() -> None:
    first, second, third, other = (domain(name) for name in ("ffmuc_welt", "ffdon_welt", "ffmuc_welt", "ffmuc_muc_cty"))
    assert find_collisions([]) == []
    assert find_collisions([first, other]) == []
    # Each one with the first of its interfaces, a domain that is listed twice included.
    assert find_collisions([first, other, second, third]) == [(first, second), (first, third)]
