"""Named data sets, a user's own arrays, and what turns them into batches.

    dataset = data.load("digits")                                  # two Splits, and what they are
    loader  = data.Loader(dataset.train, batch_size=128, seed=0)
    batch   = loader.batch(step)                                   # a pure function of the step
    images  = data.rescale(batch.inputs, dataset.scale)            # float32, in the jitted step

    gestures = data.load("dvs128_gesture")                         # recordings, read when asked for
    gestures = data.dense(gestures, to_frames)                     # [N, T, H, W, 2], for a Loader
    gestures = data.transformed(gestures, to_random_frames)        # or made anew for every batch

Nothing is imported before it is needed: TensorFlow Datasets, Grain, Pillow and scikit-learn are
loaded by the functions that use them, and so is the decoder of AEDAT 4.
"""

from snnjax.data.aedat import parse_aedat2, parse_aedat3
from snnjax.data.aedat4 import read_aedat4
from snnjax.data.arrays import from_arrays, from_npz
from snnjax.data.augmentation import augment, random_crop, random_flip, through_time
from snnjax.data.dataset import Dataset, Events, Split, dense, patches, rescale
from snnjax.data.dvs128_gait import parse_gait
from snnjax.data.erasing import random_erasing
from snnjax.data.errors import CorruptDataError, MissingDataError
from snnjax.data.grain_loader import grain_loader
from snnjax.data.image_folder import at_size, image_folder
from snnjax.data.image_view import ImageView
from snnjax.data.kfold import folds
from snnjax.data.loader import Batch, Loader, evaluation_batches, evaluation_loader
from snnjax.data.ncars import parse_dat
from snnjax.data.nmnist import parse_events
from snnjax.data.policies import rand_augment, trivial_augment
from snnjax.data.recordings import Recordings
from snnjax.data.registry import NAMES, load
from snnjax.data.tfds import from_tfds, prepare, prepared_directory, tfds_source
from snnjax.data.transformed import Transformed, clips, transformed

__all__ = [
    "NAMES",
    "Batch",
    "CorruptDataError",
    "Dataset",
    "Events",
    "ImageView",
    "Loader",
    "MissingDataError",
    "Recordings",
    "Split",
    "Transformed",
    "at_size",
    "augment",
    "clips",
    "dense",
    "evaluation_batches",
    "evaluation_loader",
    "folds",
    "from_arrays",
    "from_npz",
    "from_tfds",
    "grain_loader",
    "image_folder",
    "load",
    "parse_aedat2",
    "parse_aedat3",
    "parse_dat",
    "parse_events",
    "parse_gait",
    "patches",
    "prepare",
    "prepared_directory",
    "rand_augment",
    "random_crop",
    "random_erasing",
    "random_flip",
    "read_aedat4",
    "rescale",
    "tfds_source",
    "through_time",
    "transformed",
    "trivial_augment",
]
