"""The file of the key lists, and what is wrong with it."""

from pathlib import Path
from typing import Final

import pytest

from tests.helpers import KEY, OTHER_KEY, WELT
from wgkex_ops.config import load_key_lists
from wgkex_ops.errors import ConfigError
from wgkex_ops.model.keys import PublicKey

NO_MOMENT: Final = (
    "denied.0.expires (line 3): should be a date such as 2027-01-01, or a time with its zone such as "
    "2027-01-01T12:00:00Z"
)
RAW, OTHER_RAW = PublicKey.parse(KEY).raw, PublicKey.parse(OTHER_KEY).raw


def load(folder: Path, text: str) -> object:
    file = folder / "keys.yaml"
    file.write_text(text)
    return load_key_lists(file)


def test_a_whole_file(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text(
        f"""
        denied:
        - key: {KEY}
          name: Bob's router
          remark: reported on 2026-11-02
          expires: 2027-01-01
        allowed:
          {WELT.name}:
          - {{key: {OTHER_KEY}, expires: 2027-01-01T12:00:00+01:00}}
          ffmuc_closed: []
        protected:
        - key: {OTHER_KEY}
        """
    )
    lists = load_key_lists(file)
    bob = lists.denied[RAW]
    assert (bob.name, bob.remark, bob.expires) == ("Bob's router", "reported on 2026-11-02", 1_798_761_600)
    assert lists.allowed[WELT.name][OTHER_RAW].expires == 1_798_801_200
    assert lists.allowed["ffmuc_closed"] == {}
    assert lists.protected.keys() == {OTHER_RAW}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        ("- denied", "should be a mapping of settings"),
        ("denyed: []", "denyed (line 1): unknown key; did you mean denied?"),
        ("denied: {}", "denied (line 1): should be a list, each item on a line of its own that starts with '- '"),
        ("denied:\n- kye: x", "denied.0.kye (line 2): unknown key; did you mean key?"),
        ("denied:\n- name: x", "denied.0.key (line 2): is missing"),
        (
            "denied:\n- key: abc",
            "denied.0.key (line 2): should be a WireGuard public key (44 characters of base64)",
        ),
        (
            f"denied:\n- key: {KEY}\n  expires: soon",
            NO_MOMENT,
        ),
        (
            f"denied:\n- key: {KEY}\n  expires: 2027-01-01T12:00:00",
            NO_MOMENT,
        ),
        (
            f'denied:\n- key: {KEY}\n  name: "a\\nb"',
            "denied.0.name (line 3): should be one line of printable characters",
        ),
        (f"denied:\n- key: {KEY}\n- key: {KEY}", f"denied has {KEY} 2 times; leave one"),
        (
            f"denied:\n- key: {KEY}\nprotected:\n- key: {KEY}",
            f"{KEY} is in denied and in protected; leave it in one of them",
        ),
        (
            f"denied:\n- key: {KEY}\nallowed:\n  x:\n  - key: {KEY}",
            f"{KEY} is in denied and in allowed.x; leave it in one of them",
        ),
        ("allowed: {x: [{kye: 1, key: 2}]}", "allowed.x.0.kye (line 1): unknown key; did you mean key?"),
        ("denied: []\ndenied: []", "denied (line 2): is given twice, first on line 1; remove one"),
    ],
)
def test_problems(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, text)
    assert f"{tmp_path}/keys.yaml: {problem}" in error.value.problems


def test_a_missing_file_and_a_huge_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load_key_lists(tmp_path / "keys.yaml")
    with pytest.raises(ConfigError, match="is larger than 2097152 bytes, which no such file is"):
        load_key_lists(Path("/dev/zero"))
