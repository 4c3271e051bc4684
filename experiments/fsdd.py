"""Spoken digits of unseen speakers: improved inherent recurrence against an LSTM of equal width.

Data: Free Spoken Digit Dataset (Jackson, Souza, Flaks, Pan, Nicolas, Thite, 2018): 2,000 recordings
of george, jackson, lucas and nicolas train, 1,000 of theo and yweweler test. 60 frames of 10 ms, 40
log-mel bands at equal loudness; longer recordings are cut, shorter ones end in zeros.
Networks: coder - [linear - norm - integrator] x 2 - linear - norm (Ponghiran, Roy, "Spiking Neural
Networks with Improved Inherent Recurrence Dynamics for Sequential Learning", AAAI 2022,
arXiv:2109.01905), or two layers of the LSTM cell of Flax; mean of the logits of all frames. The
paper claims 1.10 points above an LSTM and ten times fewer multiplications, on other data.

Hardware: 2 CPU cores shared with four other jobs (float32, jax 0.10.2, flax 0.12.8)
Time: 2 to 3 minutes each, a minute of it to read and to encode the recordings
Expected: test accuracy below (measured once, seed 0; that of successive epochs differs by up to 5
points), and multiplications per recording by `snnjax cost RUN`, of nonzero numbers:

    v2      88.1 %   30,868 parameters     609 thousand multiplications
    v1      91.2 %   14,484 parameters     362 thousand
    lstm    86.0 %   60,564 parameters   3,351 thousand
    leaky   67.4 %    7,700 parameters     290 thousand (15 epochs, silence coded as -1.7)

With --lengths recordings end where they end, and --buckets N cuts batches to N lengths; the
evaluation then equals that of recordings padded to 60 frames, to the last digit of the loss.

Command: snnjax train experiments/fsdd.py --data-dir "$SNNJAX_DATA" --cell v2
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from snnjax import data, encoding, metrics, models, nn, training

CHANNELS, RATE, FLOOR = 40, 8000, 1e-3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Digits(training.Experiment):
    """Fields of this experiment.

    Attributes:
        cell: "v2", "v1" or "leaky", integrators with multi-bit spikes; "lstm", real activations.
        hidden: Neurons per layer.
        layers: Layers of neurons.
        gain: Initial scale of the feedback of "v2".
        dropout: Rate of the mask, equal at all timesteps.
        shift: Largest shift of a training example over mel bands, up or down.
        lengths: Ends every recording where it ends, for `--buckets`; False ends it in silence.
    """

    cell: str = "v2"
    hidden: int = 64
    layers: int = 2
    gain: float = 0.5
    dropout: float = 0.2
    shift: int = 2
    lengths: bool = False


def dataset(experiment):
    """Log-mel frames `[N, T, 40]` of 10 ms; 2,000 of four speakers, 1,000 of two others test."""
    recordings = data.load("fsdd", data_dir=experiment.data_dir)
    frames = Frames(experiment.timesteps, pad=not experiment.lengths)
    return data.dense(recordings, frames, timesteps=None if frames.pad else experiment.timesteps)


@dataclasses.dataclass(frozen=True)
class Frames:
    """Log-mel frames of a recording at equal loudness, scaled to about unit range."""

    timesteps: int
    pad: bool = True

    def __call__(self, waveform):
        """`[S, 1]` int16 -> `[T, 40]` float32, or of fewer frames without `pad`."""
        sound = waveform / np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))
        steps = self.timesteps if self.pad else None
        frames = encoding.audio.log_mel(
            sound, rate=RATE, channels=CHANNELS, floor=FLOOR, timesteps=steps
        )[: self.timesteps]
        # Silence, and with it the padding, is 0: no spike, and no product.
        return (frames - np.float32(np.log(FLOOR))) / np.float32(4)


def encode(experiment, inputs, key):
    """`[B, T, 40] -> [T, B, 40]`; in training shifted over the bands, as other voices are."""
    if key is not None and experiment.shift:
        shifts = jax.random.randint(key, len(inputs), -experiment.shift, experiment.shift + 1)
        bands = jnp.clip(jnp.arange(CHANNELS) - shifts[:, None], 0, CHANNELS - 1)
        inputs = jnp.take_along_axis(inputs, bands[:, None], axis=-1)
    return encoding.series(inputs)


class LSTM(nnx.Module):
    """The LSTM cell of Flax as a layer, `[T, B, I] -> [T, B, N]`, with counts of its products."""

    def __init__(self, inputs, size, *, dropout, rngs):
        self.cell = nnx.OptimizedLSTMCell(inputs, size, rngs=rngs)
        self.size, self.dropout, self.name = size, nn.Dropout(dropout), "lstm"

    def initial_state(self, shape):
        """Cell and output at rest, `[B, N]` each."""
        rest = jnp.zeros((*shape[:-1], self.size))
        return nn.contract.State((rest, rest))

    def __call__(self, inputs, state, call):
        """Outputs of every timestep."""
        # The cell is an argument of the step, as parameters of a scan are.
        graphdef, params = nnx.split(self.cell)
        step = lambda carry, x: nnx.merge(graphdef, params)(carry, x)  # noqa: E731
        carry, outputs = jax.lax.scan(step, state.neurons, inputs)
        taps = {}
        if "operations" in call.taps:
            before = jnp.concatenate([state.neurons[1][None], outputs[:-1]])
            reads = jnp.concatenate([inputs, before], axis=-1)
            kernels = [self.cell.dense_i.kernel[...], self.cell.dense_h.kernel[...]]
            count = metrics.operations.synaptic_operations(reads, jnp.concatenate(kernels))
            taps["operations"] = count
        if "products" in call.taps:
            # Forget gate and cell, input gate and candidate, output gate and output.
            taps["products"] = metrics.operations.multiplications(3 * self.size, inputs.shape[:2])
        outputs, _ = self.dropout(outputs, nn.contract.State(), call)
        return outputs, nn.contract.Aux(carry, taps={"": taps} if taps else {})


def network(experiment, rngs):
    """Layers of one kind and width behind the frames, and a logit of every class at each frame."""
    size, layers = experiment.hidden, experiment.layers
    if experiment.cell != "lstm":
        return models.recurrent_net(
            CHANNELS,
            layers=layers,
            hidden=size,
            cell=experiment.cell,
            gain=experiment.gain,
            dropout=experiment.dropout,
            rngs=rngs,
        )
    widths = [CHANNELS] + [size] * layers
    body = [LSTM(inputs, size, dropout=experiment.dropout, rngs=rngs) for inputs in widths[:-1]]
    body += [nn.Linear(size, 10, use_bias=False, rngs=rngs), nn.BatchNorm(10)]
    return nn.Network(nn.Sequential(*body), (CHANNELS,))


def config():
    """The experiment."""
    return Digits(
        name="fsdd",
        network=network,
        dataset=dataset,
        encode=encode,
        timesteps=60,
        batch=64,
        epochs=12,
        learning_rate=3e-3,
        weight_decay=1e-4,
        clip_norm=1.0,
    )
