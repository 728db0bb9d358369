"""The half-split RoPE is recognised however it is written, and nothing that only looks like it is."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from engines.fold_rope import match_rope
from tests.engines.graphs import graph_of, value_of

N, D = 3, 4
HALF_COS = np.arange(1, 1 + N * D // 2, dtype=np.float32).reshape(N, D // 2) / 8
COS, SIN = (np.concatenate([half, half], 1) for half in (HALF_COS, -HALF_COS))

CHUNK = "x1, x2 = Split <axis = -1> (x)"
SLICES = "x1 = Slice (x, zero, two, last)\nx2 = Slice (x, two, far, last)"
NEGATIVE = "x1 = Slice (x, zero, minus_two, last)\nx2 = Slice (x, minus_two, far, last)"
BODY = "n = Neg (x2)\nt = Concat <axis = -1> (n, x1)\na = Mul (x, cos)\nb = Mul (t, sin)\ny = Add (a, b)"
WIDE = """
w = Cast <to = 1> (x)
x1, x2 = Split <axis = 3> (w)
n = Neg (x2)
t = Concat <axis = 3> (n, x1)
a = Mul (cos, w)
b = Mul (t, sin)
f = Add (b, a)
y = Cast <to = 10> (f)
"""


def rope_of(body, cos=COS, sin=SIN, dtype=np.float16, tokens_first=False, tokens=N):
    numbers = {"zero": [0], "two": [2], "minus_two": [-2], "far": [1 << 62], "last": [-1]}
    constants = {"cos": cos.astype(dtype), "sin": sin.astype(dtype)}
    constants |= {name: np.array(value) for name, value in numbers.items()}
    shape = f"b,{N},2,{D}" if tokens_first else f"b,2,{N},{D}"
    model = graph_of(f"g (float16[{shape}] x) => (float16[{shape}] y)\n{{\n{body}\n}}", **constants)
    found = match_rope(value_of(model, "y"), (tokens, D), tokens_first, ir.DataType.FLOAT16)
    return found, model


@pytest.mark.parametrize("halves", [CHUNK, SLICES, NEGATIVE])
@pytest.mark.parametrize("shape", [(N, D), (1, N, D), (1, 1, N, D)])
def test_every_way_to_write_it(halves, shape):
    found, model = rope_of(f"{halves}\n{BODY}", COS.reshape(shape), SIN.reshape(shape))
    assert found.source is value_of(model, "x")
    assert np.array_equal(found.cos, HALF_COS) and np.array_equal(found.sin, -HALF_COS)
    assert found.cos.dtype == np.float32


def test_between_casts():
    found, model = rope_of(WIDE, dtype=np.float32)
    assert found.source is value_of(model, "w") and np.array_equal(found.cos, HALF_COS)


def test_tables_are_taken_before_they_are_rounded():
    rounded = f"cos16 = Cast <to = 10> (cos)\nsin16 = Cast <to = 10> (sin)\n{CHUNK}\n{BODY}"
    exact = (COS + np.float32(1e-6), SIN)
    found, _ = rope_of(rounded.replace("(x, cos)", "(x, cos16)").replace("(t, sin)", "(t, sin16)"), *exact, np.float32)
    assert np.array_equal(found.cos, exact[0][:, : D // 2])


def test_tokens_first():
    tables = (COS[:, None], SIN[:, None])
    assert rope_of(f"{CHUNK}\n{BODY}", *tables, tokens_first=True)[0] is not None
    assert rope_of(f"{CHUNK}\n{BODY}", *(table[None, None] for table in (COS, SIN)), tokens_first=True)[0] is None


OTHER = {
    "interleaved": (CHUNK, BODY.replace("Concat <axis = -1> (n, x1)", "Concat <axis = -1> (x1, n)")),
    "no sign": (CHUNK, BODY.replace("Neg", "Abs")),
    "sign of the first": (CHUNK, "n = Neg (x1)\nt = Concat <axis = -1> (x2, n)" + BODY[BODY.index("\na") :]),
    "difference": (CHUNK, BODY.replace("Add", "Sub")),
    "of another": (CHUNK, BODY.replace("Mul (x, cos)", "Mul (t, cos)")),
    "other axis": (CHUNK, "n = Neg (x)\nt = Identity (n)" + BODY[BODY.index("\na") :]),
    "swapped halves": ("x2, x1 = Split <axis = -1> (x)", BODY),
    "overlapping halves": (SLICES.replace("(x, two, far", "(x, zero, two"), BODY),
}


@pytest.mark.parametrize("other", OTHER)
def test_what_looks_alike_is_not_taken(other):
    assert rope_of("\n".join(OTHER[other]))[0] is None


@pytest.mark.parametrize(
    ("cos", "tokens"),
    [
        (np.concatenate([HALF_COS, HALF_COS + 1], 1), N),  # halves that differ
        (COS[:1], N),  # one row for all
        (COS, N + 1),  # not one row a token
        (np.broadcast_to(COS, (2, N, D)), N),  # other angles for each head
    ],
)
def test_other_tables_are_not_taken(cos, tokens):
    assert rope_of(f"{CHUNK}\n{BODY}", np.ascontiguousarray(cos), tokens=tokens)[0] is None
