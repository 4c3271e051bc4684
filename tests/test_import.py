"""Imports of the library load no optional or heavy package before it is used."""

import subprocess
import sys

import pytest

import snnjax
from tests.test_house import HEAVY

pytestmark = pytest.mark.fast
# Flax brings orbax and rich along itself.
OPTIONAL = sorted(HEAVY - {"orbax", "rich"})


def modules_after(statement):
    code = f"import sys\n{statement}\nprint(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    command = [sys.executable, "-c", code]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_the_package_alone_imports_nothing():
    assert not {"jax", "flax", *HEAVY} & modules_after("import snnjax")


def test_all_rooms_together_import_nothing_optional():
    rooms = ", ".join(snnjax._ROOMS)
    loaded = modules_after(f"from snnjax import {rooms}, cli")
    assert not loaded & set(OPTIONAL)


def test_rooms_are_attributes():
    assert snnjax.nn.LIF and snnjax.memory.store
    assert {"neurons", "load"} <= set(dir(snnjax)) and callable(snnjax.load)
    with pytest.raises(AttributeError, match="no attribute 'neuron'"):
        snnjax.neuron  # noqa: B018
