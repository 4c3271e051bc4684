"""Kernels in Pallas: loops over time whose state stays on the chip.

They are written over flat arrays and know nothing of neuron models: the dynamics come in as
functions. The rooms above choose when to use them. Pallas is imported when a kernel is called.
None of them has been timed on hardware; see `experiments/benchmarks/lif_kernel.py`.

`isolate` is no kernel but has a computation run as if it were one, on a CPU.
"""

from snnjax.ops.isolate import isolate, one_trip
from snnjax.ops.pallas_devices import by_device, gpu_options
from snnjax.ops.pallas_lif import Dynamics, Output, backward, forward
from snnjax.ops.pallas_tiles import LANES, check_block

__all__ = [
    "LANES",
    "Dynamics",
    "Output",
    "isolate",
    "backward",
    "by_device",
    "check_block",
    "forward",
    "gpu_options",
    "one_trip",
]
