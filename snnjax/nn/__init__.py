"""Flax NNX layers: parameters only; state goes in and comes out, time is the first axis.

Every layer follows the contract of `nn.Layer`; `Network` is the outermost one.
"""

from snnjax.nn.asa import ASA
from snnjax.nn.attention import SpikingSelfAttention
from snnjax.nn.candidates import candidates
from snnjax.nn.columns import Columns
from snnjax.nn.contract import (
    Aux,
    Call,
    Layer,
    MemoryRequest,
    Placed,
    State,
    mean_over_steps,
    output_shape,
    replace,
    stream_use,
)
from snnjax.nn.data_parallel import pmean_statistics, with_data_axes
from snnjax.nn.dropout import Dropout
from snnjax.nn.ma import MA, MALIF, fan_in_uniform
from snnjax.nn.mixed_precision import Precision, parse_precision, with_precision
from snnjax.nn.model_check import check_model
from snnjax.nn.network import Network, merge, split
from snnjax.nn.neuron import Neuron
from snnjax.nn.neuron_models import ALIF, IF, LI, LIF, PLIF, CoupledLIF, CubaLIF, Disabled
from snnjax.nn.normalization import BatchNorm, GroupNorm, LayerNorm, Statistics
from snnjax.nn.parallel_neurons import PSN, with_masking
from snnjax.nn.parallel_streaming import ResetFreeLIF, SlidingPSN
from snnjax.nn.pooling import AvgPool, GlobalAvgPool, MaxPool
from snnjax.nn.quantized import Quantized
from snnjax.nn.recurrent import Recurrent
from snnjax.nn.reversible import Reversible
from snnjax.nn.scaled_conv import ScaledStdConv
from snnjax.nn.shared_membrane import Grouped, Shared
from snnjax.nn.shared_scale import SharedScale
from snnjax.nn.stack import Stacked, repeat_state
from snnjax.nn.static_input import StaticInput
from snnjax.nn.strategy import saves_memory, with_memory
from snnjax.nn.sub_bit_conv import SubBitConv, with_stored_kernels
from snnjax.nn.synapses import Conv, Flatten, Fold, Linear, he_normal
from snnjax.nn.taps import counts, in_order
from snnjax.nn.wiring import Residual, Sequential, gather

__all__ = [
    "ALIF",
    "ASA",
    "IF",
    "LI",
    "LIF",
    "MA",
    "MALIF",
    "PLIF",
    "PSN",
    "Aux",
    "AvgPool",
    "BatchNorm",
    "Call",
    "Columns",
    "Conv",
    "CoupledLIF",
    "CubaLIF",
    "Disabled",
    "Dropout",
    "Flatten",
    "Fold",
    "GlobalAvgPool",
    "GroupNorm",
    "Grouped",
    "Layer",
    "LayerNorm",
    "Linear",
    "MaxPool",
    "MemoryRequest",
    "Network",
    "Neuron",
    "Placed",
    "Precision",
    "Quantized",
    "Recurrent",
    "ResetFreeLIF",
    "Residual",
    "Reversible",
    "ScaledStdConv",
    "Sequential",
    "Shared",
    "SharedScale",
    "SlidingPSN",
    "SpikingSelfAttention",
    "Stacked",
    "State",
    "StaticInput",
    "Statistics",
    "SubBitConv",
    "candidates",
    "check_model",
    "counts",
    "fan_in_uniform",
    "gather",
    "he_normal",
    "in_order",
    "mean_over_steps",
    "merge",
    "output_shape",
    "parse_precision",
    "pmean_statistics",
    "repeat_state",
    "replace",
    "saves_memory",
    "split",
    "stream_use",
    "with_data_axes",
    "with_masking",
    "with_memory",
    "with_precision",
    "with_stored_kernels",
]
