"""Every bound of this room, and why it is what it is. The one place to read and edit them.

The verdict on a network is its recipe's own `judge`: a metric of `runtime.judge` and the least that each sample must
reach, the same that engines are gated by (cat2dog: PSNR of 30 dB). The bounds here say when a block or an operator
stands out. Errors are relative: `|got - expected| / |expected|` in the Euclidean norm.

An *own error* is what a block or operator adds by itself: its inputs are those of the FP32 graph, rounded to the type
that it takes them in. It is measured against the *unit* of the precision, half the distance from 1 to the next number.
"""

from __future__ import annotations

# Rounding the result once costs at most half a unit here or there; what is exact but for that is under one.
UNIT = {"fp32": 2.0**-24, "fp16": 2.0**-11, "bf16": 2.0**-8}

# A block jumps when its own error is this many times the median block's. Measured: in sound FP16 and BF16 graphs of
# tiny-128, 500m-256 and networks of 4 blocks the worst block is at 1.3 to 2.6 times; with one weight matrix of a block
# wrong by 5 % the block is at 6 to 190 times in FP16 and at 2 to 39 in BF16, where a fault this small in a branch that
# adds little to its stream is lost in the rounding.
BLOCK_JUMP = 4.0

# ... and at least so many units, since below that nothing but rounding has happened: sound blocks are under 2.
LEAST_UNITS = 2.0

# Where every block is wrong alike the median says nothing: then this many units are a jump too.
GROSS_UNITS = 16.0

# What is larger than this in FP16 is infinite.
LARGEST_FP16 = 65504.0

# Values that would take more memory than this are not looked at: attention weights of long sequences.
MOST_BYTES = 256 << 20
