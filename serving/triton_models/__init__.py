"""Python models of a Triton repository: copied there as `model.py`, with the part of `runtime/` that they need."""
