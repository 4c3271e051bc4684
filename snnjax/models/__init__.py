"""Architectures, one family per file; neurons, normalisation and strategies are arguments."""

from snnjax.models.conv_net import conv_net
from snnjax.models.mlp import mlp
from snnjax.models.ms_resnet import ms_resnet
from snnjax.models.vgg import VGG11, VGG16, vgg

__all__ = ["VGG11", "VGG16", "conv_net", "mlp", "ms_resnet", "vgg"]
