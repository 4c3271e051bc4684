"""Compiled programs kept between runs, in a folder of the user's."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["directory", "enable"]


def directory() -> Path:
    """Where compiled programs are kept: $JAX_COMPILATION_CACHE_DIR, or the platform's place."""
    if given := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return Path(given)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "snnjax" / "compiled"


def enable(*, on: bool) -> None:
    """Says where the cache is, or turns it off for this process.

    Args:
        on: Whether compiled programs may be taken from the cache and added to it; the environment
            variable JAX_ENABLE_COMPILATION_CACHE=0 forbids it too.
    """
    import jax

    if not on:
        jax.config.update("jax_enable_compilation_cache", False)
    else:
        jax.config.update("jax_compilation_cache_dir", str(directory()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
