"""What a check finds: a sentence, how bad it is, and the remedy."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from wgkex_ops.model.fleet import Severity

# A finding fits into two lines of a terminal; what others have written, such as names, may be longer.
_LONGEST: Final = 300


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found.

    Attributes:
        check: a fixed word, see docs/doctor.md.
        severity: how bad it is.
        text: what is so, with its cause.
        remedy: what to do; empty if nothing is wrong.
        role: whom it is about, ``broker`` or ``worker``; empty for this host.
    """

    check: str
    severity: Severity
    text: str
    remedy: str = ""
    role: str = ""


def ok(check: str, text: str) -> Finding:
    """All is well."""
    return Finding(check, Severity.OK, shown(text))


def warning(check: str, text: str, remedy: str) -> Finding:
    """Nodes have their tunnels, and something should be done; or it cannot be found out from here."""
    return Finding(check, Severity.WARNING, shown(text), shown(remedy))


def critical(check: str, text: str, remedy: str) -> Finding:
    """Nodes get no tunnel, or will get none."""
    return Finding(check, Severity.CRITICAL, shown(text), shown(remedy))


def worst(findings: Iterable[Finding]) -> Severity:
    """The severity of all of them together."""
    return max((finding.severity for finding in findings), default=Severity.OK)


def shown(text: str) -> str:
    """A text on one line, not too long, and without what a terminal obeys."""
    line = "".join(character if character.isprintable() else " " for character in text)
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
