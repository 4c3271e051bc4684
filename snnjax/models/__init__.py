"""Architectures, one family per file; neurons, normalisation and strategies are arguments.

`released` is a public module: it gives networks the parameters of the authors' own code.
"""

from snnjax.models import released
from snnjax.models.angular_velocity_net import angular_velocity_net
from snnjax.models.asa_snn import asa_snn, asa_snn_five
from snnjax.models.conv_net import conv_net
from snnjax.models.dsr import dsr_resnet, dsr_vgg
from snnjax.models.efficient_lif import (
    efficient_lif_compat,
    efficient_lif_har,
    efficient_lif_resnet,
    efficient_lif_vgg,
)
from snnjax.models.feedback_net import feedback_net
from snnjax.models.mlp import mlp
from snnjax.models.ms_resnet import ms_resnet
from snnjax.models.recurrent_net import recurrent_net
from snnjax.models.resnet import resnet
from snnjax.models.rev_resnet import rev_resnet
from snnjax.models.rev_sformer import rev_sformer
from snnjax.models.sew_resnet import sew_resnet
from snnjax.models.spike_driven_transformer import spike_driven_transformer
from snnjax.models.spikformer import spikformer
from snnjax.models.spikingformer import spikingformer
from snnjax.models.strided_net import strided_net
from snnjax.models.t_revsnn import t_revsnn
from snnjax.models.tokens import tau_lif
from snnjax.models.vgg import vgg

__all__ = [
    "angular_velocity_net",
    "asa_snn",
    "asa_snn_five",
    "conv_net",
    "dsr_resnet",
    "dsr_vgg",
    "efficient_lif_compat",
    "efficient_lif_har",
    "efficient_lif_resnet",
    "efficient_lif_vgg",
    "feedback_net",
    "mlp",
    "ms_resnet",
    "recurrent_net",
    "released",
    "resnet",
    "rev_resnet",
    "rev_sformer",
    "sew_resnet",
    "spike_driven_transformer",
    "spikformer",
    "spikingformer",
    "strided_net",
    "t_revsnn",
    "tau_lif",
    "vgg",
]
