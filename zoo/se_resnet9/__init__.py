"""SE-ResNet9 with Fixup: a small network that sees for a learning agent, many small images at a time.

`network` is the plain network, `fast` its child class with the same weights, `folded` what the child becomes for
inference; `recipe` gives both to the toolchain. `operators` are the fused pieces as PyTorch operators.
"""
