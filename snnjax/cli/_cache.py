"""Persistent cache of compiled programs, in a folder of the user."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from snnjax.cli._options import Option

__all__ = ["OPTION", "directory", "enable"]

OPTION = Option("no_cache", bool, False, "Compile without the cache of compiled programs.")


def directory() -> Path:
    """Folder of compiled programs: $JAX_COMPILATION_CACHE_DIR, or the platform's cache folder."""
    # JAX's own variable takes precedence: it may name a cache shared with other programs.
    if folder := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return Path(folder)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "snnjax" / "compiled"


def enable(*, on: bool) -> None:
    """Turns the cache on or off for this process.

    Args:
        on: True to use the cache; the environment variable JAX_ENABLE_COMPILATION_CACHE=0 also
            turns it off.
    """
    import jax

    if not on:
        jax.config.update("jax_enable_compilation_cache", False)
    else:
        jax.config.update("jax_compilation_cache_dir", str(directory()))
        # JAX's default, 1 s, would leave out most programs of small networks.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
