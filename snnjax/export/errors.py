"""Errors of artifacts and files of weights; their messages name the cure."""

from __future__ import annotations

__all__ = ["ArtifactError", "PlatformError"]


class ArtifactError(ValueError):
    """The artifact cannot be written, is damaged, or is of another kind than requested."""


class PlatformError(ArtifactError):
    """The artifact is intact but does not run on the platform of this process."""
