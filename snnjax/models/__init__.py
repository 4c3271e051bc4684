"""Architectures, one family per file; neurons, normalisation and strategies are arguments."""

from snnjax.models.asa_snn import asa_attention, asa_snn, asa_snn_five
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
from snnjax.models.rev_resnet import rev_resnet
from snnjax.models.rev_sformer import rev_sformer
from snnjax.models.spikingformer import spikingformer
from snnjax.models.t_revsnn import T_REVSNN_SIZES, TRevSNNSize, column_loss, t_revsnn
from snnjax.models.tokens import tau_lif
from snnjax.models.vgg import VGG11, VGG16, vgg

__all__ = [
    "EFFICIENT_RESNET19",
    "EFFICIENT_VGG16",
    "T_REVSNN_SIZES",
    "VGG11",
    "VGG16",
    "TRevSNNSize",
    "asa_attention",
    "asa_snn",
    "asa_snn_five",
    "column_loss",
    "conv_net",
    "efficient_lif_compat",
    "efficient_lif_har",
    "efficient_lif_resnet",
    "efficient_lif_vgg",
    "mlp",
    "ms_resnet",
    "rev_resnet",
    "rev_sformer",
    "spikingformer",
    "t_revsnn",
    "tau_lif",
    "vgg",
]
