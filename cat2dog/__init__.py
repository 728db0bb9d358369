"""The model in PyTorch: config, checkpoints, FLOPs, FP32 reference. Importing `cat2dog.config` needs no torch."""
