"""ResNet50 that also gives its embedding: classes with percent, and the embedding's mean and variance, of photos.

The way of a picture is `pixels.py` (JPEG → crop, specified in PIXELS.md for every language), `network.py` (crop →
logits, embedding, mean and variance, one graph) and `answer.py` (numbers → the lines that are printed). The same way in
C++ is `runtime/cpp/`.
"""
