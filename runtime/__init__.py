"""The thin runtime: finds TensorRT flavors, loads engines, runs images. Imports no other room and no torch."""
