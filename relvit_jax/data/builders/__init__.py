"""Builders of TensorFlow Datasets that TFDS lacks, and that need no TensorFlow.

What they write is ArrayRecord, read by `tfds.data_source` like any other data
set: sub-splits, `even_splits` and Grain work on it.
"""
