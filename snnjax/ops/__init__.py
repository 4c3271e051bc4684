"""Operations on arrays and trees that know no neuron; every module is public.

    convolution     convolution with gradients that stay fast inside a loop on a CPU
    max_pool        max pooling with a residual of one byte per patch
    rounding        rounding to narrow floats that a replay repeats; products in float32
    arguments       checks of the options of layers and losses
    derivative      derivatives by definition, at every order, and refused ones
    variables       trees whose Flax variables stand at several places
    isolate         a computation that XLA:CPU runs alone
    programs        room for compiled programs in the process
    pallas          choice of a kernel by device; tiling of neurons
    pallas_lif      LIF neurons over a whole sequence as Pallas kernels

Import the modules, or names from them: `from snnjax.ops.rounding import narrow`. Pallas is imported
when a kernel is called. No kernel has been timed on hardware; see
`experiments/benchmarks/lif_kernel.py`.
"""
