"""Errors of data sets: files that are missing, and files whose content is not what it must be."""

from __future__ import annotations


class MissingDataError(FileNotFoundError):
    """The data set is not on this machine; the message says how to get it and where to put it."""


class CorruptDataError(ValueError):
    """The content of a file does not match its data set or format: truncated or altered."""
