"""Programs of `experiments/` as modules."""

import importlib.util
import pathlib
import sys

EXPERIMENTS = pathlib.Path(__file__).parents[1] / "experiments"


def loaded(path, *, beside=None):
    """The module of a file under `experiments/`; it finds those of the folder `beside`."""
    path = EXPERIMENTS / path
    if beside is not None:
        sys.path.insert(0, str(EXPERIMENTS / beside))
    try:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module  # where a dataclass looks up its annotations
        spec.loader.exec_module(module)
        return module
    finally:
        if beside is not None:
            sys.path.pop(0)
