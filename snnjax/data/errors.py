"""What can go wrong with a data set: it is not there, or it is not what its name says."""

from __future__ import annotations


class MissingDataError(FileNotFoundError):
    """A data set is not on this machine; the message says where to put it or how to get it."""


class CorruptDataError(ValueError):
    """The bytes found are not the data set they are named after: cut short, altered or swapped."""
