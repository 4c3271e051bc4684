"""Persistent cache of compiled programs, in a folder of the user."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
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


def enable(*, on: bool, warn: Callable[[str], None]) -> None:
    """Turns the cache on or off for this process.

    Args:
        on: True to use the cache; the environment variable JAX_ENABLE_COMPILATION_CACHE=0 also
            turns it off.
        warn: Called with a sentence about a folder that cannot be used.
    """
    import jax

    if not (on and _is_usable(warn)):
        jax.config.update("jax_enable_compilation_cache", False)
    else:
        # As text: a path would lose a slash of `gs://`.
        folder = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(directory())
        jax.config.update("jax_compilation_cache_dir", folder)
        if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
            # JAX's default, 1 s, would leave out most programs of small networks.
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def _is_usable(warn: Callable[[str], None]) -> bool:
    """True if files can be made in the folder; JAX would warn about each program instead."""
    try:
        if "://" in os.environ.get("JAX_COMPILATION_CACHE_DIR", ""):
            return True  # in the cloud, where JAX writes by other means
        folder = directory()
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    # RuntimeError: a user without a home folder.
    except (OSError, RuntimeError) as error:
        warn(
            f"programs are compiled without a cache ({error}): set JAX_COMPILATION_CACHE_DIR to a "
            "folder of yours, or give --no-cache"
        )
        return False
    return True
