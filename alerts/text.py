"""YAML as a person reads it: texts of several lines are blocks, and lists are indented."""

from typing import Final

import yaml

# Longer texts are folded. An address has no space to fold at, and is shorter.
_LONG: Final = 105


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines and long ones as blocks, and indents lists."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002  the base's call
        super().increase_indent(flow, indentless=False)

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002  the base's call
        """Write an object that occurs twice twice: an alias is no help for a reader."""
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else ">" if len(text) > _LONG else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def as_yaml(document: object) -> str:
    """One YAML document, in the order of its mappings."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=_LONG, allow_unicode=True)


def spaced(text: str) -> str:
    """The same with an empty line before each rule, and before each group of rules but the first."""
    lines = text.splitlines()
    return "".join(
        f"\n{line}\n"
        if line.lstrip().startswith(("- name:", "- record:", "- alert:")) and not before.endswith(("groups:", "rules:"))
        else f"{line}\n"
        for before, line in zip(["", *lines], lines, strict=False)
    )
