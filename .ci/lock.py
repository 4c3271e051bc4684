"""Writes the versions and hashes of all packages that the tests install.

    python .ci/lock.py          resolves them anew for the Python that runs this file

The file `.ci/lock-VERSION-PLATFORM.txt` lists what pip chose for `pip install -e ".[dev]"` and for
building the package, one archive a line. `.ci/run` installs exactly these archives where there is a
file for its Python and platform.
"""

import json
import pathlib
import subprocess
import sys
import sysconfig
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[1]


def lock_path():
    """Path of the file for this Python and platform."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return ROOT / ".ci" / f"lock-{version}-{sysconfig.get_platform()}.txt"


def requirements():
    """Requirements of the package, of its tests and of its build."""
    fields = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = fields["project"]
    # Hatchling asks for `editables` only once it builds an editable package.
    build = [*fields["build-system"]["requires"], "editables"]
    return [*project["dependencies"], *project["optional-dependencies"]["dev"], *build]


def main():
    """Resolves the requirements and writes the file."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--report", "-"]
    command += ["--ignore-installed", *requirements()]
    report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    lines = []
    for package in report["install"]:
        name, version = package["metadata"]["name"], package["metadata"]["version"]
        digest = package["download_info"]["archive_info"]["hashes"]["sha256"]
        lines.append(f"{name.lower()}=={version} --hash=sha256:{digest}\n")
    lock_path().write_text("".join(sorted(lines)))
    print(f"{lock_path().name}: {len(lines)} packages")


if __name__ == "__main__":
    main()
