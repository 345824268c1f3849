"""Images for training: sources, decoding, sample order, batches."""

from fastgan.data.dataset import ImageDataset, Sample, open_dataset
from fastgan.data.decode import Fit, ImageFormat
from fastgan.data.loader import Batch, Loader
from fastgan.data.order import SampleOrder
from fastgan.data.source import DIGITS

__all__ = [
    "DIGITS",
    "Batch",
    "Fit",
    "ImageDataset",
    "ImageFormat",
    "Loader",
    "Sample",
    "SampleOrder",
    "open_dataset",
]
