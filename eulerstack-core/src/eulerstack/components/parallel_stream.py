"""`ParallelStream`: streams side by side and their merge, by hand or in a model."""

from eulerstack.hf.parallel_stream import ParallelStream

__all__ = ["ParallelStream"]
