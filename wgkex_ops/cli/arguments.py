"""Types of arguments that several commands have."""

import argparse

from wgkex_ops.config import broker_url
from wgkex_ops.errors import InvalidPublicKeyError
from wgkex_ops.model.keys import PublicKey


def public_key(text: str) -> PublicKey:
    """Read a public key as nodes spell it.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        return PublicKey.parse(text)
    except InvalidPublicKeyError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def url(text: str) -> str:
    """Read the URL of a broker; see `broker_url`.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        return broker_url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
