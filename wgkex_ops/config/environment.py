"""A configuration from environment variables, as the container image of the older wgkex takes it.

Its variables have the same names and defaults here; some are new. The text that is made of them is checked like any
other file, so there is one set of rules for settings.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from wgkex_ops.errors import ConfigError

_Value: TypeAlias = "str | bool | list[str] | dict[str, _Value] | None"

_WHITE_SPACE: Final = " \t\r\n"
_QUOTES: Final = "'\""
_AROUND: Final = "begins or ends with white space; remove it, or put all into quotes if it belongs there"
_ON: Final = frozenset({"true", "yes", "on", "1"})
_OFF: Final = frozenset({"false", "no", "off", "0"})


def _listed(value: str) -> _Value:
    """Separate with commas, white space, or both; a domain has no quotes in its name."""
    return [item.strip(_QUOTES) for item in re.split(f"[,{_WHITE_SPACE}]+", value) if item.strip(_QUOTES)]


def _switch(value: str) -> _Value:
    """Take the words for true and false that YAML 1.1 and people have."""
    if value.lower() in _ON | _OFF:
        return value.lower() in _ON
    raise ValueError("should be true or false")


def _level(value: str) -> _Value:
    """Take a log level; the variable's name makes people write true and false, too."""
    try:
        return "debug" if _switch(value) else "info"
    except ValueError:
        return value


class Variable(NamedTuple):
    """A variable of the environment.

    Attributes:
        name: its name.
        settings: what it sets, as dotted paths.
        default: its value where it is not there or empty; empty for the default of the setting.
        read: makes a value of its text; raises ValueError with a sentence.
        exact: whether white space around it could be meant.
    """

    name: str
    settings: tuple[str, ...]
    default: str = ""
    read: Callable[[str], _Value] = str
    exact: bool = False


_PASSWORD: Final = "MQTT_PASSWORD"  # noqa: S105  a name
_PASSWORD_FILE: Final = "MQTT_PASSWORD_FILE"  # noqa: S105  a name
_TLS: Final = "MQTT_TLS"
_CA_FILE: Final = "MQTT_TLS_CA_FILE"

VARIABLES: Final = (
    # Those of the older image.
    Variable(
        "WGKEX_DOMAINS",
        ("domains",),
        "ffmuc_muc_cty, ffmuc_muc_nord, ffmuc_muc_ost, ffmuc_muc_sued, ffmuc_muc_west, ffmuc_welt, ffwert_city",
        _listed,
    ),
    Variable("WGKEX_DOMAIN_PREFIXES", ("domain_prefixes",), "ffmuc_, ffdon_, ffwert_", _listed),
    Variable("WGKEX_DEBUG", ("log_level",), "DEBUG", _level),
    Variable("MQTT_BROKER_URL", ("mqtt.broker_url",), "mqtt"),
    Variable("MQTT_BROKER_PORT", ("mqtt.broker_port",), "1883"),
    Variable("MQTT_USERNAME", ("mqtt.username",), exact=True),
    Variable(_PASSWORD, ("mqtt.password",), exact=True),
    Variable("MQTT_KEEPALIVE", ("mqtt.keepalive",), "5"),
    Variable(_TLS, ("mqtt.tls",), "False", _switch),
    # New ones. A container is reached by an address of its own, so nodes are served at all of them.
    Variable(_PASSWORD_FILE, ("mqtt.password",)),
    Variable(_CA_FILE, ("mqtt.tls.ca_file",)),
    Variable("WGKEX_NAME", ("broker.name", "worker.name")),
    Variable("WGKEX_EXTERNAL_NAME", ("externalName",)),
    Variable("WGKEX_LISTEN_HOST", ("broker_listen.host",), "0.0.0.0"),  # noqa: S104  see above
    Variable("WGKEX_LISTEN_PORT", ("broker_listen.port",), "5000"),
    Variable("WGKEX_METRICS_HOST", tuple(f"{role}.metrics_listen.host" for role in ("broker", "worker", "probe"))),
    Variable("WGKEX_DATAPLANE", ("worker.dataplane",)),
)

_BY_SETTING: Final = {setting: variable.name for variable in VARIABLES for setting in variable.settings}
# A problem as the loader spells it, behind the name of the file.
_PROBLEM: Final = re.compile(r"(?P<setting>[A-Za-z_][\w.]*?)(?:\.\d+)?(?: \(line \d+\))?: (?P<sentence>.*)", re.DOTALL)


def environment_text(environ: Mapping[str, str]) -> str:
    """Make the text of a configuration file of the environment.

    White space around a value, and then one pair of quotes around it, are not part of it: so it was when the older
    image made YAML of it, and `docker run --env-file` leaves quotes where they are. Where white space could be meant,
    it is refused outside of quotes. An empty value is none.

    Raises:
        ConfigError: with all values that cannot be used, by the names of their variables.
    """
    values: dict[str, _Value] = {}
    problems: list[str] = []
    for variable in VARIABLES:
        given = environ.get(variable.name, "")
        text = _stripped(given) or variable.default
        if not text:
            continue
        if variable.exact and given != given.strip(_WHITE_SPACE):
            problems.append(f"{variable.name}: {_AROUND}")
            continue
        try:
            text.encode()
            values[variable.name] = variable.read(text)
        except UnicodeEncodeError:
            problems.append(f"{variable.name}: is not UTF-8")
        except ValueError as error:
            problems.append(f"{variable.name}: {error}")
    problems += _read_password(values)
    problems += _join_tls(values)
    if problems:
        raise ConfigError(problems)
    root: dict[str, _Value] = {}
    for variable in VARIABLES:
        if variable.name in values:
            for setting in variable.settings:
                _put(root, setting.split("."), values[variable.name])
    return _yaml(root)


def by_variable(problem: str, source: str) -> str:
    """Name the variable in a problem of `environment_text`, as the loader found it, in place of the setting.

    Args:
        problem: a sentence of a `ConfigError`.
        source: the name that the loader was given.
    """
    found = problem.removeprefix(f"{source}: ")
    match = _PROBLEM.fullmatch(found)
    if match is None or (name := _BY_SETTING.get(match["setting"])) is None:
        return f"the environment: {found}"
    return f"{name}: {match['sentence']}"


def _stripped(text: str) -> str:
    text = text.strip(_WHITE_SPACE)
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in _QUOTES
    return text[1:-1] if quoted else text


def _read_password(values: dict[str, _Value]) -> list[str]:
    """Put the password of the file, if one is named, into the place of its path."""
    path = values.pop(_PASSWORD_FILE, None)
    if path is None:
        return []
    if _PASSWORD in values:
        return [f"{_PASSWORD} and {_PASSWORD_FILE}: are both there; set one of them"]
    try:
        # What editors and `echo` put at the end of a line is not part of it; all else is.
        values[_PASSWORD] = Path(str(path)).read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r") or None
    except OSError as error:
        return [f"{_PASSWORD_FILE}: cannot be read: {error.strerror}"]
    except UnicodeDecodeError:
        return [f"{_PASSWORD_FILE}: the file is not UTF-8"]
    return []


def _join_tls(values: dict[str, _Value]) -> list[str]:
    """An authority takes the place of `mqtt.tls: true`, which is a section then."""
    if _CA_FILE not in values:
        return []
    # Without a value it has a problem already.
    if values.pop(_TLS, True) is False:
        return [f"{_CA_FILE}: has no use without {_TLS}: true"]
    return []


def _put(section: dict[str, _Value], path: list[str], value: _Value) -> None:
    name, *rest = path
    if rest:
        inner = section.setdefault(name, {})
        if isinstance(inner, dict):
            _put(inner, rest, value)
    else:
        section[name] = value


def _yaml(value: _Value) -> str:
    """Write YAML in which a text is a text, whatever is in it."""
    match value:
        case dict():
            return "{" + ", ".join(f"{key}: {_yaml(inner)}" for key, inner in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_yaml, value)) + "]"
        case str():
            return '"' + "".join(map(_escaped, value)) + '"'
        case bool():
            return "true" if value else "false"
    return "null"


def _escaped(character: str) -> str:
    plain = character.isascii() and character.isprintable() and character not in '"\\'
    return character if plain else f"\\U{ord(character):08X}"
