"""The plugin library: a C++ host for compiled kernels inside TensorRT, how it is built, and its header finder."""
