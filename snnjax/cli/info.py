"""`snnjax info`.

Fields of its JSON object:

    python, platform, packages, backend, devices, cores      see `training.Run.versions`
    extras              versions of the optional packages that are installed, by name
    memory              per device: {"device", "bytes_limit", "bytes_in_use"}, null if unknown
    host_memory_bytes   memory of the machine, null if unknown
    cache, data_dir     folders of compiled programs and of data sets
"""

from __future__ import annotations

import os
from importlib import metadata
from typing import Any

from snnjax import training
from snnjax.cli import _cache as cache
from snnjax.cli._options import parse
from snnjax.cli._output import Screen

__all__ = ["command"]

_EXTRAS = ("tensorflow-datasets", "grain", "pillow", "tensorboardX", "scikit-learn", "matplotlib")


def command(arguments: list[str], screen: Screen) -> tuple[dict[str, Any], int]:
    """Reports the versions, devices and memory of this installation."""
    parse("snnjax info", "Versions, devices and memory.", [], arguments)
    # After parsing, so that --help does not wait for JAX.
    import jax

    facts: dict[str, Any] = training.Run.versions()
    facts["extras"] = {name: v for name in _EXTRAS if (v := _version(name))}
    facts["memory"] = [_memory(device) for device in jax.devices()]
    facts["host_memory_bytes"] = _host_memory()
    facts["cache"] = str(cache.directory())
    facts["data_dir"] = os.environ.get("SNNJAX_DATA")
    screen.say(f"Python {facts['python']} on {facts['platform']}, {facts['cores']} cores")
    for name, version in {**facts["packages"], **facts["extras"]}.items():
        screen.say(f"  {name:<20} {version}")
    for device, memory in zip(jax.devices(), facts["memory"], strict=True):
        limit = memory["bytes_limit"]
        size = f"{limit / 2**30:.1f} GiB" if limit else "memory of the host"
        screen.say(f"{device}: {device.device_kind}, {size}")
    if facts["host_memory_bytes"]:
        screen.say(f"host memory: {facts['host_memory_bytes'] / 2**30:.1f} GiB")
    screen.say(f"compiled programs: {facts['cache']}")
    screen.say(f"data sets: {facts['data_dir'] or 'SNNJAX_DATA is not set'}")
    return facts, 0


def _version(name: str) -> str | None:
    try:
        # From the metadata: importing a large package may take seconds.
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _memory(device: Any) -> dict[str, Any]:
    # A CPU does not count its memory.
    stats = device.memory_stats() or {}
    return {
        "device": str(device),
        "bytes_limit": stats.get("bytes_limit"),
        "bytes_in_use": stats.get("bytes_in_use"),
    }


def _host_memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # Windows has no sysconf, and some systems lack these names.
    except (AttributeError, ValueError, OSError):
        return None
