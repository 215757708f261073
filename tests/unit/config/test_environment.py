"""The environment of a container as a configuration: the older image's variables, and some new ones."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import example, given
from hypothesis import settings as profile
from hypothesis import strategies as st

from tests.helpers import ROOT
from wgkex_ops.config import Config, by_variable, environment_text, parse, settings
from wgkex_ops.config.environment import VARIABLES
from wgkex_ops.errors import ConfigError

NAMES: Final = [variable.name for variable in VARIABLES]
# As the older image's compose file sets them where nobody has set anything.
OLDER: Final = {
    "WGKEX_DOMAINS": "ffmuc_muc_cty, ffmuc_muc_nord, ffmuc_muc_ost, ffmuc_muc_sued, ffmuc_muc_west, ffmuc_welt, "
    "ffwert_city",
    "WGKEX_DOMAIN_PREFIXES": "ffmuc_, ffdon_, ffwert_",
    "WGKEX_DEBUG": "DEBUG",
    "MQTT_BROKER_URL": "mqtt",
    "MQTT_BROKER_PORT": "1883",
    "MQTT_USERNAME": "",
    "MQTT_PASSWORD": "",
    "MQTT_KEEPALIVE": "5",
    "MQTT_TLS": "False",
}
# Whatever an environment can have: no NUL, and bytes that are not UTF-8 as Python spells them.
TEXT: Final = st.text(st.characters(exclude_characters="\0"), max_size=40)
PASSWORD: Final = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
# Pieces of what people type, right and wrong.
TYPED: Final = st.lists(
    st.sampled_from([*"'\" ,\t\n:#%$[]{}&*!|>@`-~?\\", "ffmuc_", "welt", "1883", "true", "0", "no", "null", "<<", "é"]),
    max_size=12,
).map("".join)


def read(**environ: str) -> Config:
    return parse(environment_text(environ), "f")


def problems(**environ: str) -> tuple[str, ...]:
    """What is wrong with an environment, by its variables."""
    try:
        text = environment_text(environ)
    except ConfigError as error:
        return error.problems
    with pytest.raises(ConfigError) as caught:
        parse(text, "f")
    return tuple(by_variable(problem, "f") for problem in caught.value.problems)


def password(config: Config) -> str | None:
    secret = config.mqtt.password
    return None if secret is None else secret.get_secret_value()


# --- what is right


@pytest.mark.parametrize("environ", [{}, OLDER, dict.fromkeys(OLDER, ""), dict.fromkeys(OLDER, " \t")])
def test_without_values_it_is_what_the_older_image_had(environ: Mapping[str, str]) -> None:
    config = read(**environ)

    assert config.domain_names == tuple(OLDER["WGKEX_DOMAINS"].split(", "))
    assert config.domain_prefixes == ("ffmuc_", "ffdon_", "ffwert_")
    assert config.log_level == "debug"
    assert (config.mqtt.host, config.mqtt.port, config.mqtt.keepalive) == ("mqtt", 1883, 5)
    assert (config.mqtt.username, config.mqtt.password, config.mqtt.tls) == (None, None, None)
    assert str(config.broker_listen) == "0.0.0.0:5000"
    assert str(config.worker.metrics_listen) == "127.0.0.1:9691"


def test_each_variable_has_an_effect() -> None:
    text = environment_text({})
    changed = {
        "WGKEX_DOMAINS": "ffmuc_welt",
        "WGKEX_DOMAIN_PREFIXES": "ffmuc_ ff",
        "WGKEX_DEBUG": "info",
        "MQTT_TLS": "true",
        "MQTT_PASSWORD_FILE": str(ROOT / "LICENSE"),
        "WGKEX_DATAPLANE": "memory",
    }
    for name in NAMES:
        if name != "MQTT_TLS_CA_FILE":
            assert environment_text({name: changed.get(name, "77")}) != text, name


def test_every_setting_of_a_variable_exists() -> None:
    assert {setting for variable in VARIABLES for setting in variable.settings} <= set(settings())


@pytest.mark.parametrize(
    "value",
    [
        "ffmuc_welt,ffmuc_muc_cty",
        "ffmuc_welt, ffmuc_muc_cty",
        "ffmuc_welt ffmuc_muc_cty",
        " ,ffmuc_welt ,\t, ffmuc_muc_cty,\n",
        '"ffmuc_welt, ffmuc_muc_cty"',
        "'ffmuc_welt', 'ffmuc_muc_cty'",
        "ffmuc_welt\r\nffmuc_muc_cty\r\n",
    ],
)
def test_a_list_has_commas_or_white_space(value: str) -> None:
    assert read(WGKEX_DOMAINS=value).domain_names == ("ffmuc_welt", "ffmuc_muc_cty")


@pytest.mark.parametrize("value", ["true", "True", "TRUE", "yes", "on", "1", " True ", '"True"'])
def test_tls_is_on(value: str) -> None:
    assert read(MQTT_TLS=value).mqtt.tls is not None


@pytest.mark.parametrize("value", ["false", "False", "no", "off", "0", "'False'", "''"])
def test_tls_is_off(value: str) -> None:
    assert read(MQTT_TLS=value).mqtt.tls is None


@pytest.mark.parametrize(
    ("value", "level"),
    [("DEBUG", "debug"), ("warning", "warning"), ("1", "debug"), ("true", "debug"), ("False", "info"), ("0", "info")],
)
def test_debug_is_a_level_or_a_switch(value: str, level: str) -> None:
    assert read(WGKEX_DEBUG=value).log_level == level


def test_quotes_that_docker_leaves_around_values_are_not_part_of_them() -> None:
    config = read(**{name: f'"{value}"' for name, value in OLDER.items()})

    assert config == read(**OLDER)


@pytest.mark.parametrize(
    "secret",
    [
        *("pa#ss", "pa ss # no comment", "a: b", "{a}", "[a", "&a", "*a", "!a", "%a", "$A", "- a", "<<", "|", "p,w"),
        *("a'b", 'a"b', "'", '"', "\\n", "a\\", "0123", "null", "~", "true", "1e5", "2026-01-01"),
        *("🔑", "\u2028", "\x85", "\x01"),
    ],
)
def test_no_character_of_a_password_has_a_meaning(secret: str) -> None:
    assert password(read(MQTT_PASSWORD=secret)) == secret
    assert read(MQTT_USERNAME=secret).mqtt.username == secret


@profile(deadline=None)
@given(PASSWORD)
@example(" x ")
@example("'x'")
@example('""')
def test_a_password_in_quotes_arrives_as_it_is(secret: str) -> None:
    assert password(read(MQTT_PASSWORD=f'"{secret}"')) == secret
    assert password(read(MQTT_PASSWORD=f"'{secret}'")) == secret


@profile(deadline=None)
@given(PASSWORD | TYPED)
@example(" x")
@example("  ")
@example("'x'")
def test_a_password_without_quotes_arrives_as_it_is_or_is_refused(secret: str) -> None:
    inner = secret.strip(" \t\r\n")
    quoted = len(inner) > 1 and inner[0] == inner[-1] and inner[0] in "'\""
    if inner != secret and inner not in ("", "''", '""'):
        assert problems(MQTT_PASSWORD=secret)[0].startswith("MQTT_PASSWORD: begins or ends with white space")
    else:
        assert password(read(MQTT_PASSWORD=secret)) == ((inner[1:-1] if quoted else inner) or None)


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_password_in_a_file_is_its_line(tmp_path: Path, end: str) -> None:
    file = tmp_path / "password"
    file.write_bytes(f" '#pä ss' {end}".encode())

    assert password(read(MQTT_PASSWORD_FILE=str(file))) == " '#pä ss' "


def test_an_authority_is_trusted_with_tls(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("is read by the bus only")

    tls = read(MQTT_TLS="true", MQTT_TLS_CA_FILE=str(file)).mqtt.tls
    assert tls is not None
    assert (tls.ca_file, tls.verify) == (file, True)


def test_new_variables_reach_their_settings() -> None:
    config = read(
        WGKEX_NAME="gw01",
        WGKEX_EXTERNAL_NAME="gw01.example.net",
        WGKEX_LISTEN_HOST="::",
        WGKEX_LISTEN_PORT="8080",
        WGKEX_METRICS_HOST="0.0.0.0",
        WGKEX_DATAPLANE="memory",
    )

    assert (config.broker.name, config.worker.name, config.external_name) == ("gw01", "gw01", "gw01.example.net")
    assert str(config.broker_listen) == "[::]:8080"
    listeners = (config.broker.metrics_listen, config.worker.metrics_listen, config.probe.metrics_listen)
    assert [str(listen) for listen in listeners] == ["0.0.0.0:9690", "0.0.0.0:9691", "0.0.0.0:9692"]
    assert config.worker.dataplane == "memory"


# --- what is wrong


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"WGKEX_DOMAINS": ","}, "WGKEX_DOMAINS: should have at least one item"),
        ({"WGKEX_DOMAINS": "ffmuc_welt, ffbla"}, "WGKEX_DOMAINS: 'ffbla' starts with none of"),
        ({"WGKEX_DOMAINS": "ffmuc_we/lt"}, "WGKEX_DOMAINS: "),
        ({"WGKEX_DEBUG": "loud"}, "WGKEX_DEBUG: should be one of debug, info"),
        ({"MQTT_BROKER_URL": "mqtt://mqtt:1883"}, "MQTT_BROKER_URL: should be a host's name or address only"),
        ({"MQTT_BROKER_PORT": "tcp://10.0.0.1:1883"}, "MQTT_BROKER_PORT: should be a valid integer"),
        ({"MQTT_BROKER_PORT": "70000"}, "MQTT_BROKER_PORT: should be less than or equal to 65535"),
        ({"MQTT_KEEPALIVE": "often"}, "MQTT_KEEPALIVE: should be a valid integer"),
        ({"MQTT_TLS": "maybe"}, "MQTT_TLS: should be true or false"),
        ({"MQTT_TLS": "maybe", "MQTT_TLS_CA_FILE": "/ca.pem"}, "MQTT_TLS: should be true or false"),
        ({"MQTT_TLS_CA_FILE": "/ca.pem"}, "MQTT_TLS_CA_FILE: has no use without MQTT_TLS: true"),
        ({"MQTT_TLS": "1", "MQTT_TLS_CA_FILE": "/no.pem"}, "MQTT_TLS_CA_FILE: should be the path of a file"),
        ({"MQTT_PASSWORD_FILE": "/no"}, "MQTT_PASSWORD_FILE: cannot be read: No such file or directory"),
        ({"MQTT_PASSWORD": "a", "MQTT_PASSWORD_FILE": "/no"}, "MQTT_PASSWORD and MQTT_PASSWORD_FILE: are both there"),
        ({"MQTT_PASSWORD": "secret\r"}, "MQTT_PASSWORD: begins or ends with white space"),
        ({"MQTT_PASSWORD": " 'secret'"}, "MQTT_PASSWORD: begins or ends with white space"),
        ({"MQTT_USERNAME": "wgkex "}, "MQTT_USERNAME: begins or ends with white space"),
        ({"MQTT_PASSWORD": "\udcff"}, "MQTT_PASSWORD: is not UTF-8"),
        ({"WGKEX_NAME": "a b"}, "WGKEX_NAME: should be at most 253 letters"),
        ({"WGKEX_DATAPLANE": "paper"}, "WGKEX_DATAPLANE: should be 'kernel' or 'memory'"),
    ],
)
def test_what_is_wrong_is_one_sentence_with_the_variable(environ: Mapping[str, Any], problem: str) -> None:
    found = problems(**environ)

    assert {text.partition(":")[0] for text in found} == {problem.partition(":")[0]}
    assert all(text.startswith(problem) for text in found)


def test_all_problems_come_at_once() -> None:
    found = problems(WGKEX_DOMAINS="x", MQTT_BROKER_PORT="x", MQTT_KEEPALIVE="x")

    assert [problem.split(":")[0] for problem in found] == ["WGKEX_DOMAINS", "MQTT_BROKER_PORT", "MQTT_KEEPALIVE"]


def test_a_problem_shows_no_password() -> None:
    assert "hunter2" not in str(
        problems(MQTT_PASSWORD="hunter2", MQTT_BROKER_URL="mqtt://u:hunter2@mqtt", MQTT_TLS="x")
    )


@profile(deadline=None)
@given(st.dictionaries(st.sampled_from([*NAMES, "PATH"]), TEXT | TYPED, max_size=8))
def test_any_environment_is_a_configuration_or_names_what_is_wrong(environ: Mapping[str, str]) -> None:
    try:
        text = environment_text(environ)
    except ConfigError as error:
        found = error.problems
    else:
        try:
            parse(text, "f")
        except ConfigError as error:
            found = tuple(by_variable(problem, "f") for problem in error.problems)
        else:
            return
    assert found
    for problem in found:
        names = re.match(r"(\w+)(?: and (\w+))?: \S", problem)
        assert names is not None, problem
        assert set(filter(None, names.groups())) <= set(NAMES), problem
        assert problem.isprintable(), problem
