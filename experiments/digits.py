"""The embedded experiment, `snnjax train` without an argument, as a file of this folder.

`snnjax/default_experiment.py` defines `config` and lists paper, hardware, time and expected number.
Command: snnjax train experiments/digits.py
"""

from snnjax.default_experiment import config

__all__ = ["config"]
