"""Every primitive computed slowly and plainly, in the tensors' own dtype (float64 in tests): no caches, no kernels."""
