"""`wgkex-ops keys`: the file is edited, and what operators wrote around the entries stays."""

import json
import multiprocessing
import stat
from pathlib import Path

import pytest

from tests.helpers import KEY, OTHER_KEY, key
from wgkex_ops.__main__ import main
from wgkex_ops.config import load_key_lists

EDITED = f"""\
# Ours, since 2024
denied:  # for ever
# stolen ones
- key: {KEY}  # Bob's
  name: 'router of Bob'
# The gateways
protected:
- key: {OTHER_KEY}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of key lists that does not exist yet, and a configuration that names it."""
    file, config = tmp_path / "keys.yaml", tmp_path / "wgkex.yaml"
    config.write_text(
        "domains: [ffmuc_welt]\ndomain_prefixes: [ffmuc_]\nmqtt: {broker_url: localhost}\n" + f"key_lists: {file}\n"
    )
    monkeypatch.setenv("WGKEX_CONFIG_FILE", str(config))
    return file


def keys(*arguments: str) -> int:
    return main(["keys", *arguments])


def test_the_first_key_makes_the_file(file: Path) -> None:
    assert keys("deny", KEY, "--name", "Bob", "--remark", "stolen", "--expires", "2027-01-01") == 0
    (listed,) = load_key_lists(file).denied.values()
    assert (listed.name, listed.remark, listed.expires) == ("Bob", "stolen", 1_798_761_600)
    assert stat.S_IMODE(file.stat().st_mode) == 0o644


def test_comments_quotes_order_and_mode_stay(file: Path) -> None:
    file.write_text(EDITED)
    file.chmod(0o640)
    added = str(key(9))
    assert keys("deny", added) == 0
    assert file.read_text() == EDITED.replace("# stolen ones\n", f"# stolen ones\n- key: {added}\n")
    assert keys("remove", added) == 0
    assert file.read_text() == EDITED
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_a_key_that_is_there_gets_the_new_details(file: Path) -> None:
    file.write_text(EDITED)
    assert keys("deny", KEY, "--remark", "again") == 0
    (listed,) = load_key_lists(file).denied.values()
    assert (listed.name, listed.remark) == ("router of Bob", "again")
    assert "# The gateways\nprotected:" in file.read_text()


def test_the_last_key_leaves_an_empty_list(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(EDITED)
    assert keys("remove", KEY) == 0
    assert "denied: []  # for ever\n# stolen ones\n# The gateways\n" in file.read_text()
    assert keys("allow", "ffmuc_welt", KEY) == 0
    assert keys("remove", KEY) == 0
    assert load_key_lists(file).allowed == {"ffmuc_welt": {}}
    assert "no key is allowed there" in capsys.readouterr().out


def test_a_key_is_taken_out_of_all_lists(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys("allow", "ffmuc_welt", KEY)
    keys("protect", KEY)
    capsys.readouterr()
    assert keys("remove", KEY) == 0
    assert capsys.readouterr().out.startswith(f"{KEY} is not in allowed.ffmuc_welt, protected any more.\n")
    assert keys("remove", KEY) == 1
    assert capsys.readouterr().out == f"{KEY} is in no list.\n"


def test_entries_of_several_lines_are_removed_whole(file: Path) -> None:
    entry = f"- key: {KEY}\n  remark: >\n    several\n    lines\n"
    file.write_text(f"denied:\n- key: {key(1)}\n{entry}- key: {key(2)}\n")
    assert keys("remove", KEY) == 0
    assert file.read_text() == f"denied:\n- key: {key(1)}\n- key: {key(2)}\n"


@pytest.mark.parametrize(
    ("before", "arguments", "problem"),
    [
        (EDITED, ["deny", OTHER_KEY], "is in denied and in protected"),
        (EDITED, ["protect", KEY], "is in denied and in protected"),
        (EDITED, ["allow", "ffmuc_x", KEY], "'ffmuc_x' is not one of the domains: ffmuc_welt"),
        (EDITED, ["deny", str(key(1)), "--expires", "soon"], "should be a date"),
        (EDITED, ["deny", str(key(1)), "--name", "x" * 101], "at most 100 characters"),
        ("denied: [", ["deny", KEY], "cannot be read"),
        (f"denied: [{{key: {KEY}}}]", ["remove", KEY], "has to be removed by hand"),
        ("", ["list"], "is empty"),
    ],
)
def test_what_would_be_wrong_is_not_written(
    file: Path, capsys: pytest.CaptureFixture[str], before: str, arguments: list[str], problem: str
) -> None:
    file.write_text(before)
    assert keys(*arguments) == 2
    assert problem in capsys.readouterr().err
    assert file.read_text() == before
    assert {path.name for path in file.parent.iterdir()} == {"keys.yaml", "wgkex.yaml"}


def test_files_that_cannot_be_used(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert keys("list") == 2
    assert capsys.readouterr().err == f"{file}: No such file or directory\n"
    (file.parent / "wgkex.yaml").write_text("domains: [welt]\ndomain_prefixes: ['']\nmqtt: {broker_url: localhost}\n")
    assert keys("list") == 2
    assert capsys.readouterr().err == "key_lists is not set in the configuration: it names the file\n"


def test_the_lists_are_shown(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(EDITED)
    assert keys("list") == 0
    assert capsys.readouterr().out == f"denied  {KEY}  router of Bob\nprotected  {OTHER_KEY}\n"
    assert keys("list", "--json") == 0
    assert json.loads(capsys.readouterr().out) == [
        {"list": "denied", "key": KEY, "name": "router of Bob", "remark": "", "expires": None},
        {"list": "protected", "key": OTHER_KEY, "name": "", "remark": "", "expires": None},
    ]


def test_a_link_stays_a_link(file: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere" / "keys.yaml"
    target.parent.mkdir()
    target.write_text(EDITED)
    file.symlink_to(target)
    assert keys("deny", str(key(1))) == 0
    assert file.is_symlink()
    assert key(1).raw in load_key_lists(target).denied


def _deny(number: int) -> None:
    assert keys("deny", str(key(number))) == 0


def test_edits_at_the_same_time_lose_nothing(file: Path) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.map(_deny, range(1, 21))
    assert load_key_lists(file).denied.keys() == {key(number).raw for number in range(1, 21)}
