"""What an operator can do wrong, or meet. The command line shows the text and ends with status 1.

These are not the API's answers to its callers: those are domain errors, mapped in ``problems.py``.
"""

from __future__ import annotations


class OperatorError(Exception):
    """Base: the text says what is wrong and what to do."""


class SettingsError(OperatorError):
    """The environment's settings are unfit; the text names each variable."""


class NodeError(OperatorError):
    """The node's folder, database or address is unfit for what was asked."""


class ProcessError(OperatorError):
    """A child did not start, or ended by itself; the text says which, why as far as is known, and where its log is."""


class OwnerError(OperatorError):
    """The node or the ingestion refused what an owner asked; the text is theirs."""
