"""Every neuron again as plain loops over NumPy scalars, written from the equations alone.

`x` is `[T, B, N]`; parameters are floats or one value per neuron. Each function returns the
outputs and the states after every step, all `[T, B, N]` float64.
"""

import numpy as np


def _per_neuron(value, n):
    return np.broadcast_to(np.asarray(value, np.float64), (n,))


def _apply_reset(h, fired, threshold, rule, value=0.0):
    if not fired or rule == "none":
        return h
    if rule == "subtract":
        return h - threshold
    if rule == "zero":
        return 0.0
    if rule == "to":
        return value
    raise AssertionError(rule)


def lif(
    x, decay, threshold, *, v0=0.0, rule="subtract", value=0.0, scale_input=False, strict=False
):
    """Leaky integrate-and-fire; returns spikes, membranes after and before the reset."""
    timesteps, batch, n = x.shape
    decay, threshold = _per_neuron(decay, n), _per_neuron(threshold, n)
    spikes, after, before = (np.zeros(x.shape) for _ in range(3))
    for b in range(batch):
        for j in range(n):
            v = np.broadcast_to(v0, (batch, n))[b, j]
            for t in range(timesteps):
                gain = 1 - decay[j] if scale_input else 1.0
                h = decay[j] * v + gain * x[t, b, j]
                fired = h > threshold[j] if strict else h >= threshold[j]
                v = _apply_reset(h, fired, threshold[j], rule, value)
                spikes[t, b, j], after[t, b, j], before[t, b, j] = fired, v, h
    return spikes, after, before


def lif_delayed(x, decay, threshold, *, rule="subtract", strict=True):
    """LIF whose reset acts at the next step; returns spikes and membranes before the reset."""
    timesteps, batch, n = x.shape
    spikes, membranes = np.zeros(x.shape), np.zeros(x.shape)
    for b in range(batch):
        for j in range(n):
            v, fired = 0.0, False
            for t in range(timesteps):
                kept = decay * v
                if fired:
                    kept = {"subtract": kept - threshold, "zero": 0.0, "none": kept}[rule]
                v = kept + x[t, b, j]
                fired = v > threshold if strict else v >= threshold
                spikes[t, b, j], membranes[t, b, j] = fired, v
    return spikes, membranes


def alif(x, decay, threshold, adaptation_decay, strength, *, rule="subtract"):
    """Adaptive LIF; returns spikes, membranes and adaptations."""
    timesteps, batch, n = x.shape
    spikes, membranes, adaptations = (np.zeros(x.shape) for _ in range(3))
    for b in range(batch):
        for j in range(n):
            v = a = 0.0
            for t in range(timesteps):
                h = decay * v + x[t, b, j]
                fired = h >= threshold + strength * a
                v = _apply_reset(h, fired, threshold, rule)
                a = adaptation_decay * a
                if fired:
                    a = a + 1.0
                spikes[t, b, j], membranes[t, b, j], adaptations[t, b, j] = fired, v, a
    return spikes, membranes, adaptations


def cuba_lif(x, decay, synaptic_decay, threshold, *, rule="subtract"):
    """Current-based LIF; returns spikes, membranes and synaptic currents."""
    filtered = np.zeros(x.shape)
    for t in range(x.shape[0]):
        filtered[t] = x[t] + (synaptic_decay * filtered[t - 1] if t > 0 else 0.0)
    spikes, after, _ = lif(filtered, decay, threshold, rule=rule)
    return spikes, after, filtered


def li(x, decay, *, scale_input=False):
    """Leaky integrator in closed form: a weighted sum over the past."""
    gain = 1 - decay if scale_input else 1.0
    v = np.zeros(x.shape)
    for t in range(x.shape[0]):
        for past in range(t + 1):
            v[t] += decay ** (t - past) * gain * x[past]
    return v


def recurrent_lif(x, weights, decay, threshold):
    """LIF whose last spikes come back through `weights` `[N, N]`, from row to column."""
    timesteps, batch, n = x.shape
    spikes = np.zeros(x.shape)
    for b in range(batch):
        v, last = np.zeros(n), np.zeros(n)
        for t in range(timesteps):
            for j in range(n):
                fed_back = sum(last[i] * weights[i, j] for i in range(n))
                h = decay * v[j] + x[t, b, j] + fed_back
                spikes[t, b, j] = h >= threshold
                v[j] = h - threshold if spikes[t, b, j] else h
            last = spikes[t, b].copy()
    return spikes


def spyx_lif(x, decay, threshold):
    """Spikes read from the membrane of the previous step, reset by subtraction after the leak."""
    timesteps, batch, n = x.shape
    spikes, membranes = np.zeros(x.shape), np.zeros(x.shape)
    v = np.zeros((batch, n))
    for t in range(timesteps):
        spikes[t] = v > threshold
        v = decay * v + x[t] - spikes[t] * threshold
        membranes[t] = v
    return spikes, membranes


def lif_gradient(
    x, g_spikes, g_last, decay, threshold, *, slope, hard, detach, scale_input, v0=0.0
):
    """Backpropagation through time of `lif` by hand, scalar parameters.

    Returns the gradients of `sum(s * g_spikes) + sum(v[T-1] * g_last)` with respect to the inputs,
    the initial membrane, the decay and the threshold.
    """
    timesteps = x.shape[0]
    rule = "zero" if hard else "subtract"
    spikes, after, before = lif(x, decay, threshold, v0=v0, rule=rule, scale_input=scale_input)
    gain = 1 - decay if scale_input else 1.0
    g_x, g_v = np.zeros(x.shape), np.array(g_last, np.float64)
    g_decay = g_threshold = 0.0
    for t in reversed(range(timesteps)):
        h, s, k = before[t], spikes[t], slope(before[t] - threshold)
        through_spike = 0.0 if detach else (-h if hard else -threshold) * k
        kept = (1 - s if hard else 1.0) + through_spike
        g_h = g_spikes[t] * k + g_v * kept
        g_threshold -= np.sum(g_spikes[t] * k)
        g_threshold -= np.sum(g_v * (through_spike if hard else through_spike + s))
        previous = after[t - 1] if t > 0 else np.broadcast_to(v0, x.shape[1:])
        g_decay += np.sum(g_h * (previous - x[t] if scale_input else previous))
        g_x[t] = gain * g_h
        g_v = decay * g_h
    return g_x, g_v, g_decay, g_threshold
