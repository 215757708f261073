"""`wgkex-ops simulate`: what its options may be, and how progress is shown without a terminal."""

from pathlib import Path
from typing import Final

import pytest

from wgkex_ops.__main__ import main, parser
from wgkex_ops.cli.terminal import progress

URL: Final = ("--url", "http://broker.example.net")


def test_by_default_routers_are_those_of_the_field() -> None:
    found = parser().parse_args(["simulate", "2000"])
    assert found.routers == 2000
    assert (found.within, found.retry_after, found.tries, found.behind, found.lasts) == (39, 60, 3, 3, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "the following arguments are required: N"),
        (["0"], "argument N: should be from 1 to 100000"),
        (["100001"], "argument N: should be from 1 to 100000"),
        (["many"], "argument N: should be from 1 to 100000"),
        (["5", "--within", "-1"], "argument --within: should be seconds, from 0 to 86400"),
        (["5", "--within", "1e3"], "argument --within: should be seconds, from 0 to 86400"),
        (["5", "--for", "86401"], "argument --for: should be seconds, from 0 to 86400"),
        (["5", "--retry-after", "soon"], "argument --retry-after: should be seconds, from 0 to 86400"),
        (["5", "--tries", "0"], "argument --tries: should be from 1 to 1000"),
        (["5", "--behind", "0"], "argument --behind: should be from 1 to 1000"),
        (["5", "--url", "broker"], "argument --url: should be a URL"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_option_is_status_2_with_a_message(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["simulate", *options])
    assert end.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], URL, ["--domain", "ffmuc_welt"]], ids=["nothing", "URL", "domain"])
def test_what_the_options_do_not_say_is_read_from_the_configuration(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "missing.yaml"
    assert main(["simulate", "1", *options, "--config", str(missing)]) == 2
    assert capsys.readouterr().err.startswith(f"{missing}: does not exist")


def test_progress_without_a_terminal_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(line_every=0) as show:
        show(1, 2, "1 of 2 accepted")
    assert capsys.readouterr() == ("", "1 of 2 accepted\n")
    with progress(line_every=3600) as show:
        show(1, 2, "1 of 2 accepted")
    assert capsys.readouterr() == ("", "")
