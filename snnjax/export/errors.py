"""What can go wrong with an artifact or a file of weights; the message names the cure."""

from __future__ import annotations

__all__ = ["ArtifactError", "PlatformError"]


class ArtifactError(ValueError):
    """An artifact that cannot be written, is damaged, or of another kind than what is asked."""


class PlatformError(ArtifactError):
    """An artifact that is whole, for other machines than this one."""
