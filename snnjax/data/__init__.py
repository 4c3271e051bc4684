"""Named data sets, data sets of a user's own files and arrays, and batches of them.

    dataset = data.load("digits")                                  # two Splits and their metadata
    loader  = data.Loader(dataset.train, batch_size=128, seed=0)
    batch   = loader.batch(step)                                   # a pure function of the step
    images  = data.rescale(batch.inputs, dataset.scale)            # float32, in the jitted step

    gestures = data.load("dvs128_gesture")                         # recordings, read on access
    gestures = data.dense(gestures, to_frames)                     # [N, T, H, W, 2], for a Loader
    gestures = data.map_inputs(gestures, to_random_frames)         # or computed for every batch

    inputs, lengths = data.pad(sequences)                          # [N, T, ...], for `lengths=`
    loader = data.Loader(split, batch_size=128, buckets=(20, 40, 60))   # batches cut to a bucket

Four submodules are public: `augmentation` (random crops, flips, policies), `event_files` (file
formats of event cameras), `rotation` (rendered events of a rotating camera) and `tfds` (sets
prepared by TensorFlow Datasets).

TensorFlow Datasets, Grain, Pillow, scikit-learn, h5py and the decoder of AEDAT 4 are imported by
the functions that use them.
"""

from snnjax.data import augmentation, event_files, rotation, tfds
from snnjax.data.arrays import from_arrays, pad
from snnjax.data.dataset import (
    CorruptDataError,
    Dataset,
    MissingDataError,
    Split,
    patches,
    rescale,
)
from snnjax.data.dense_frames import dense
from snnjax.data.grain_loader import grain_loader
from snnjax.data.image_folder import image_folder, with_image_view
from snnjax.data.kfold import folds, hold_out
from snnjax.data.lazy import clips, map_inputs
from snnjax.data.loader import Batch, Loader, bucket_lengths, evaluation_batches
from snnjax.data.registry import load

__all__ = [
    "Batch",
    "CorruptDataError",
    "Dataset",
    "Loader",
    "MissingDataError",
    "Split",
    "augmentation",
    "bucket_lengths",
    "clips",
    "dense",
    "evaluation_batches",
    "event_files",
    "folds",
    "from_arrays",
    "grain_loader",
    "hold_out",
    "image_folder",
    "load",
    "map_inputs",
    "pad",
    "patches",
    "rescale",
    "rotation",
    "tfds",
    "with_image_view",
]
