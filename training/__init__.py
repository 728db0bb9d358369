"""The demo data and the training of the demo checkpoints: drawn pairs of a cat portrait and its cartoon dog."""
