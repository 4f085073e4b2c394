"""A vector index for facepass in NumPy files."""

from facepass_numpy_index.index import NumpyFilesVectorIndex, open_index

__all__ = ["NumpyFilesVectorIndex", "open_index"]
