"""Architectures, one family per file; neurons, normalisation and strategies are arguments."""

from snnjax.models.conv_net import conv_net
from snnjax.models.efficient_lif import (
    EFFICIENT_RESNET19,
    EFFICIENT_VGG16,
    efficient_lif_compat,
    efficient_lif_har,
    efficient_lif_resnet,
    efficient_lif_vgg,
)
from snnjax.models.mlp import mlp
from snnjax.models.ms_resnet import ms_resnet
from snnjax.models.rev_sformer import rev_sformer
from snnjax.models.spikingformer import spikingformer
from snnjax.models.tokens import tau_lif
from snnjax.models.vgg import VGG11, VGG16, vgg

__all__ = [
    "EFFICIENT_RESNET19",
    "EFFICIENT_VGG16",
    "VGG11",
    "VGG16",
    "conv_net",
    "efficient_lif_compat",
    "efficient_lif_har",
    "efficient_lif_resnet",
    "efficient_lif_vgg",
    "mlp",
    "ms_resnet",
    "rev_sformer",
    "spikingformer",
    "tau_lif",
    "vgg",
]
