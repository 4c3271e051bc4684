"""Flax NNX layers: parameters only; state goes in and comes out, time is the first axis.

Every layer follows the contract of `nn.contract.Layer`; `Network` is the outermost one. Public
modules hold the parts of layers of your own:

    contract           requests of memory strategies, states, shapes and statistics of layers
    taps               operations and order of the layers that a forward pass reports
    synapses           initializers of kernels
    mixed_precision    formats of numbers, and their text form
    data_parallel      statistics over devices
"""

from snnjax.nn import contract, data_parallel, mixed_precision, synapses, taps
from snnjax.nn.asa import ASA
from snnjax.nn.attention import SpikeDrivenAttention, SpikingSelfAttention
from snnjax.nn.candidates import candidates
from snnjax.nn.columns import Columns
from snnjax.nn.contract import Aux, Call, State, replace
from snnjax.nn.delays import Delay, DelayedLinear, with_delay_width
from snnjax.nn.dropout import Dropout
from snnjax.nn.integrator import Integrator, SigmaDelta
from snnjax.nn.ma import MA, MALIF
from snnjax.nn.mixed_precision import with_precision
from snnjax.nn.model_check import check_model
from snnjax.nn.network import Network, merge, split
from snnjax.nn.neuron import Neuron
from snnjax.nn.neuron_models import (
    ALIF,
    IF,
    LI,
    LIF,
    PLIF,
    PSP,
    SRM,
    AdEx,
    CoupledLIF,
    CubaLIF,
    Disabled,
    Izhikevich,
)
from snnjax.nn.normalization import BatchNorm, GroupNorm, LayerNorm
from snnjax.nn.parallel_neurons import PSN, with_masking
from snnjax.nn.parallel_streaming import ResetFreeLIF, SlidingPSN
from snnjax.nn.pooling import AvgPool, GlobalAvgPool, MaxPool
from snnjax.nn.quantized import Quantized
from snnjax.nn.recurrent import Recurrent
from snnjax.nn.reversible import Reversible
from snnjax.nn.scaled_conv import ScaledStdConv
from snnjax.nn.shared_membrane import Grouped, Shared
from snnjax.nn.shared_scale import SharedScale
from snnjax.nn.stack import Stacked
from snnjax.nn.strategy import saves_memory, with_memory
from snnjax.nn.sub_bit_conv import SubBitConv, with_stored_kernels
from snnjax.nn.synapses import Conv, Flatten, Fold, Linear
from snnjax.nn.wiring import Residual, Sequential, StaticInput

__all__ = [
    "mixed_precision",
    "synapses",
    "data_parallel",
    "taps",
    "contract",
    "ALIF",
    "ASA",
    "AdEx",
    "IF",
    "Integrator",
    "Izhikevich",
    "LI",
    "LIF",
    "MA",
    "MALIF",
    "PLIF",
    "PSN",
    "PSP",
    "SRM",
    "Aux",
    "AvgPool",
    "BatchNorm",
    "Call",
    "Columns",
    "Conv",
    "CoupledLIF",
    "CubaLIF",
    "Delay",
    "DelayedLinear",
    "Disabled",
    "Dropout",
    "Flatten",
    "Fold",
    "GlobalAvgPool",
    "GroupNorm",
    "Grouped",
    "LayerNorm",
    "Linear",
    "MaxPool",
    "Network",
    "Neuron",
    "Quantized",
    "Recurrent",
    "ResetFreeLIF",
    "Residual",
    "Reversible",
    "ScaledStdConv",
    "Sequential",
    "Shared",
    "SharedScale",
    "SigmaDelta",
    "SlidingPSN",
    "SpikeDrivenAttention",
    "SpikingSelfAttention",
    "Stacked",
    "State",
    "StaticInput",
    "SubBitConv",
    "candidates",
    "check_model",
    "merge",
    "replace",
    "saves_memory",
    "split",
    "with_delay_width",
    "with_masking",
    "with_memory",
    "with_precision",
    "with_stored_kernels",
]
