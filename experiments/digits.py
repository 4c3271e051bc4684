"""The embedded experiment, `snnjax train` without an argument, as a file of this folder.

Paper, hardware, time, expected number: in snnjax/default_experiment.py, whose `config` this is.
Command: snnjax train experiments/digits.py
"""

from snnjax.default_experiment import config

__all__ = ["config"]
