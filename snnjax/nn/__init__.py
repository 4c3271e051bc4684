"""Flax NNX layers: parameters only; state goes in and comes out, time is the first axis.

Every layer follows the contract of `nn.Layer`; `Network` is the outermost one.
"""

from snnjax.nn.asa import ASA
from snnjax.nn.attention import Attention, SpikingSelfAttention, attend
from snnjax.nn.candidates import candidates
from snnjax.nn.columns import Columns
from snnjax.nn.contract import (
    Aux,
    Call,
    Layer,
    MemoryRequest,
    Placed,
    State,
    StreamPeak,
    mean_over_steps,
    replace,
    stateless,
    stream_use,
)
from snnjax.nn.data_parallel import local_rows, pmean_statistics, with_data_axes
from snnjax.nn.disabled import Disabled
from snnjax.nn.dropout import Dropout
from snnjax.nn.initialization import he_normal
from snnjax.nn.ma import MA, MALIF
from snnjax.nn.mixed_precision import Precision, parse_precision, with_precision
from snnjax.nn.model_check import check_model
from snnjax.nn.network import Network
from snnjax.nn.neuron import Constant, Neuron
from snnjax.nn.neuron_models import ALIF, IF, LI, LIF, PLIF, CoupledLIF, CubaLIF
from snnjax.nn.normalization import BatchNorm, GroupNorm, LayerNorm, Statistics
from snnjax.nn.parallel_neurons import PSN, MaskedPSN, with_masking
from snnjax.nn.parallel_streaming import ResetFreeLIF, SlidingPSN
from snnjax.nn.parameters import merge, split
from snnjax.nn.pooling import AvgPool, GlobalAvgPool, MaxPool, max_pool
from snnjax.nn.quantized import Quantized
from snnjax.nn.recurrent import Recurrent
from snnjax.nn.reversible import Reversible
from snnjax.nn.scaled_conv import ScaledStdConv
from snnjax.nn.shared_membrane import Grouped, Shared
from snnjax.nn.shared_scale import SharedScale
from snnjax.nn.stack import Repeated, Stacked, repeat_state
from snnjax.nn.static_input import StaticInput
from snnjax.nn.strategy import saves_memory, with_memory
from snnjax.nn.sub_bit_conv import SubBitConv, with_stored_kernels
from snnjax.nn.synapses import Conv, Flatten, Fold, Linear
from snnjax.nn.wiring import Residual, Sequential
from snnjax.ops.convolution import convolution

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
    "Attention",
    "Aux",
    "AvgPool",
    "BatchNorm",
    "Call",
    "Columns",
    "Constant",
    "Conv",
    "CoupledLIF",
    "CubaLIF",
    "Dropout",
    "Flatten",
    "Fold",
    "GlobalAvgPool",
    "GroupNorm",
    "Grouped",
    "Layer",
    "LayerNorm",
    "Linear",
    "MaskedPSN",
    "MaxPool",
    "MemoryRequest",
    "Network",
    "Neuron",
    "StaticInput",
    "Placed",
    "Precision",
    "Quantized",
    "Recurrent",
    "ResetFreeLIF",
    "Residual",
    "Repeated",
    "Reversible",
    "ScaledStdConv",
    "Sequential",
    "Shared",
    "SharedScale",
    "SlidingPSN",
    "SpikingSelfAttention",
    "Stacked",
    "State",
    "Statistics",
    "StreamPeak",
    "SubBitConv",
    "Disabled",
    "attend",
    "convolution",
    "repeat_state",
    "pmean_statistics",
    "max_pool",
    "mean_over_steps",
    "merge",
    "candidates",
    "check_model",
    "with_data_axes",
    "he_normal",
    "local_rows",
    "parse_precision",
    "replace",
    "saves_memory",
    "split",
    "stateless",
    "stream_use",
    "with_masking",
    "with_memory",
    "with_precision",
    "with_stored_kernels",
]
