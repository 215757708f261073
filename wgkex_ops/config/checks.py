"""Check plain values against the document's layout, and say what is wrong in our own words."""

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from wgkex_ops.config.document import Document, settings
from wgkex_ops.config.problems import Place, Problem, kind, show
from wgkex_ops.config.yamlfile import List, Map
from wgkex_ops.errors import InvalidDomainError
from wgkex_ops.model.domains import Domain, find_collisions, parse_domain


def check(data: Map) -> tuple[Document | None, list[Problem]]:
    """Make a document, and find all problems; it cannot be used if there are any."""
    document, problems = _validate(data)
    return document, problems + _find_domain_problems(data)


def _validate(data: Map) -> tuple[Document | None, list[Problem]]:
    """Check everything but the domains' names."""
    try:
        return Document.model_validate(data, by_alias=True, by_name=False), []
    except ValidationError as error:
        details = error.errors(include_url=False)
    problems = []
    for detail in details:
        path = detail["loc"]
        # pydantic marks what is wrong with a key itself by one more part, which the file might have as well.
        if detail["type"] == "value_error" and path[:1] == ("workers",) and path[2:] == ("[key]",):
            path = path[:-1]
        problems.append(Problem(path, _find_line(data, path), _sentence(path, detail)))
    return None, problems


def _find_line(data: object, path: Place) -> int | None:
    """Find the line of a setting, or of the innermost mapping that lacks it."""
    line = None
    for part in path:
        if not isinstance(data, Map | List) or part not in data.lines:
            break
        line = data.lines[part]
        data = data[part]  # type: ignore[index]  # the key of one and the index of the other are both in its lines
    return line


def _sentence(path: Place, detail: Mapping[str, Any]) -> str:
    """Say in plain words what pydantic found."""
    value, context = detail["input"], detail.get("ctx", {})
    match detail["type"]:
        case "value_error":
            sentence = str(context["error"])
        case "missing":
            sentence = "is missing, and has no default"
        case "extra_forbidden":
            sentence = _unknown_key(path)
        case "model_type" | "dict_type":
            sentence = f"should be a mapping of settings, not {kind(value)}"
        case "list_type" | "tuple_type":
            sentence = f"should be a list, each item on a line of its own that starts with '- ', not {kind(value)}"
        case "too_short":
            sentence = "should have at least one item"
        case "literal_error":
            sentence = f"should be {context['expected']}, not {show(value)}"
        case "bool_type":
            sentence = f"should be true or false, not {show(value)}"
        case _:
            sentence = f"cannot be used ({detail['msg']})"
    return sentence


def _unknown_key(path: Place) -> str:
    """Name the one place where this very key is at home, or the closest key that is at home here."""
    *parents, key = map(str, path)
    if parents[:1] == ["workers"]:
        parents = ["workers", "*"]
    known = [setting.split(".") for setting in settings()]
    here = [setting[-1] for setting in known if setting[:-1] == parents]
    homes = [setting for setting in known if setting[-1] == key and setting[0] not in {"workers", "logging_config"}]
    if len(homes) == 1:
        return f"unknown key; did you mean {'.'.join(homes[0])}?"
    if close := difflib.get_close_matches(key, here, n=1):
        return f"unknown key; did you mean {close[0]}?"
    return f"unknown key; known here: {', '.join(here)}"


def _find_domain_problems(data: Map) -> list[Problem]:
    """Check the domains' names against the prefixes and one another; what is no text is `_validate`'s business."""
    names, prefixes = data.get("domains"), data.get("domain_prefixes")
    if not isinstance(names, List) or not isinstance(prefixes, list):
        return []
    if not all(isinstance(prefix, str) for prefix in prefixes):
        return []
    domains: dict[int, Domain] = {}
    problems: list[Problem] = []
    for index, name in enumerate(names):
        if isinstance(name, str):
            try:
                domains[index] = parse_domain(name, prefixes)
            except InvalidDomainError as error:
                problems.append(Problem(("domains", index), names.lines[index], str(error)))
    index_of = {id(domain): index for index, domain in domains.items()}
    for first, second in find_collisions(domains.values()):
        index = index_of[id(second)]
        sentence = (
            f"{second.name!r} is listed twice; remove one"
            if first == second
            else f"{second.name!r} needs the same interfaces as {first.name!r}: {first.wg} and {first.vx}"
        )
        problems.append(Problem(("domains", index), names.lines[index], sentence))
    return problems
