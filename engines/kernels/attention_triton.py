"""Fused attention in Triton: the form that every GPU from compute capability 8.0 on runs.

One program computes BLOCK_M rows of one head: it walks over the keys in blocks of BLOCK_N and keeps a running maximum
and sum of the softmax (Milakov & Gimelshein, arXiv 1805.02867; as FlashAttention, arXiv 2205.14135), so no N x N matrix
exists. Logits, softmax and the output's accumulator are FP32.

Every stride is a constant: a kernel is compiled for one problem. All strides count elements. Queries and keys are read
as two halves of the head where RoPE or QK-RMSNorm is done inside, because RoPE turns channel i with i + D/2.
"""

# The signature of a Triton kernel is its list of constants; there is no shorter way to say it.
import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _rows(pointer, rows, columns, stride, limit, width: tl.constexpr, padded: tl.constexpr, whole: tl.constexpr):
    """`[rows, columns]` of a row-major matrix; rows from `limit` on and columns from `width` on are 0."""
    at = pointer + rows[:, None] * stride + columns[None, :]
    if whole:
        if padded:
            return tl.load(at, mask=columns[None, :] < width, other=0.0)
        return tl.load(at)
    mask = rows[:, None] < limit
    if padded:
        mask = mask & (columns[None, :] < width)
    return tl.load(at, mask=mask, other=0.0)


@triton.jit
def _turned(first, second, gain, cos, sin, rows, columns, limit, eps,
            D: tl.constexpr, PADDED: tl.constexpr, NORM: tl.constexpr, ROPE: tl.constexpr):  # fmt: skip
    """Both halves of queries or keys after RMSNorm over the head (with `gain`) and RoPE, in FP32.

    `rows` are tokens, `columns` 0..D/2 of the halves.
    """
    half: tl.constexpr = D // 2
    first = first.to(tl.float32)
    second = second.to(tl.float32)
    inside = columns < half
    if NORM:
        square = (tl.sum(first * first, 1) + tl.sum(second * second, 1)) / D
        scale = tl.rsqrt(square + eps)[:, None]
        if PADDED:
            first *= scale * tl.load(gain + columns, mask=inside, other=0.0)[None, :]
            second *= scale * tl.load(gain + half + columns, mask=inside, other=0.0)[None, :]
        else:
            first *= scale * tl.load(gain + columns)[None, :]
            second *= scale * tl.load(gain + half + columns)[None, :]
    if ROPE:
        c = _rows(cos, rows, columns, half, limit, half, PADDED, False)
        s = _rows(sin, rows, columns, half, limit, half, PADDED, False)
        turned = first * c - second * s
        second = second * c + first * s
        first = turned
    return first, second


@triton.jit
def _step(acc, total, peak, q, q2, k_at, v_at, gain_k, cos, sin, start, keys, scale, eps, columns, v_columns,
          K_ROW: tl.constexpr, V_ROW: tl.constexpr, D: tl.constexpr, BLOCK_N: tl.constexpr, NORM: tl.constexpr,
          ROPE: tl.constexpr, HALVES: tl.constexpr, PADDED: tl.constexpr, V_PADDED: tl.constexpr,
          WHOLE: tl.constexpr):  # fmt: skip
    """One block of keys and values. `scale` is that of the logits times log2(e): exp2 is what the hardware has."""
    rows = start + tl.arange(0, BLOCK_N)
    if HALVES:
        first = _rows(k_at, rows, columns, K_ROW, keys, D // 2, PADDED, WHOLE)
        second = _rows(k_at + D // 2, rows, columns, K_ROW, keys, D // 2, PADDED, WHOLE)
        dtype = first.dtype
        first, second = _turned(first, second, gain_k, cos, sin, rows, columns, keys, eps, D, PADDED, NORM, ROPE)
        logits = tl.dot(q, tl.trans(first.to(dtype)))
        logits = tl.dot(q2, tl.trans(second.to(dtype)), logits)
    else:
        k = _rows(k_at, rows, v_columns, K_ROW, keys, D, V_PADDED, WHOLE)
        logits = tl.dot(q, tl.trans(k))
    if not WHOLE:
        logits = tl.where((rows < keys)[None, :], logits, float("-inf"))
    highest = tl.maximum(peak, tl.max(logits, 1) * scale)
    weights = tl.exp2(logits * scale - highest[:, None])
    shrink = tl.exp2(peak - highest)
    total = total * shrink + tl.sum(weights, 1)
    v = _rows(v_at, rows, v_columns, V_ROW, keys, D, V_PADDED, WHOLE)
    acc = tl.dot(weights.to(v.dtype), v, acc * shrink[:, None])
    return acc, total, highest


@triton.jit
def attention(Q, K, V, Out, Gain_q, Gain_k, Cos, Sin, Partial, Peaks, scale, eps,
              HEADS: tl.constexpr, D: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
              Q_BATCH: tl.constexpr, Q_HEAD: tl.constexpr, Q_ROW: tl.constexpr,
              K_BATCH: tl.constexpr, K_HEAD: tl.constexpr, K_ROW: tl.constexpr,
              V_BATCH: tl.constexpr, V_HEAD: tl.constexpr, V_ROW: tl.constexpr,
              O_BATCH: tl.constexpr, O_HEAD: tl.constexpr, O_ROW: tl.constexpr,
              BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, HALF: tl.constexpr, WIDE: tl.constexpr,
              NORM: tl.constexpr, ROPE: tl.constexpr, SPLITS: tl.constexpr, STAGES: tl.constexpr):  # fmt: skip
    """Grid: (blocks of queries * SPLITS, HEADS, batch).

    With SPLITS > 1 each program sees a part of the keys and leaves its unnormalised rows in `Partial`
    `[batch, HEADS, SPLITS, QUERIES, D]` and (maximum, sum) in `Peaks` `[batch, HEADS, SPLITS, QUERIES, 2]`, both FP32,
    for `combine`. HALF and WIDE are D/2 and D padded to a power of two.
    """
    block = tl.program_id(0) // SPLITS
    part = tl.program_id(0) % SPLITS
    head = tl.program_id(1)
    batch = tl.program_id(2).to(tl.int64)
    HALVES: tl.constexpr = NORM or ROPE
    PADDED: tl.constexpr = HALF * 2 != D
    V_PADDED: tl.constexpr = WIDE != D
    WHOLE_M: tl.constexpr = QUERIES % BLOCK_M == 0
    # Each split gets whole blocks of keys; the last may get fewer.
    BLOCKS: tl.constexpr = (KEYS + BLOCK_N - 1) // BLOCK_N
    EACH: tl.constexpr = (BLOCKS + SPLITS - 1) // SPLITS * BLOCK_N
    Q += batch * Q_BATCH + head * Q_HEAD
    K += batch * K_BATCH + head * K_HEAD
    V += batch * V_BATCH + head * V_HEAD
    rows = block * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.arange(0, HALF)
    v_columns = tl.arange(0, WIDE)
    if HALVES:
        q = _rows(Q, rows, columns, Q_ROW, QUERIES, D // 2, PADDED, WHOLE_M)
        q2 = _rows(Q + D // 2, rows, columns, Q_ROW, QUERIES, D // 2, PADDED, WHOLE_M)
        dtype = q.dtype
        first, second = _turned(q, q2, Gain_q, Cos, Sin, rows, columns, QUERIES, eps, D, PADDED, NORM, ROPE)
        q = first.to(dtype)
        q2 = second.to(dtype)
    else:
        q = _rows(Q, rows, v_columns, Q_ROW, QUERIES, D, V_PADDED, WHOLE_M)
        q2 = q
    acc = tl.zeros([BLOCK_M, WIDE], tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    peak = tl.full([BLOCK_M], float("-inf"), tl.float32)
    scale *= LOG2E
    begin = part * EACH
    end = tl.minimum(begin + EACH, KEYS // BLOCK_N * BLOCK_N)
    for start in tl.range(begin, end, BLOCK_N, num_stages=STAGES):
        acc, total, peak = _step(acc, total, peak, q, q2, K, V, Gain_k, Cos, Sin, start, KEYS, scale, eps, columns,
                                 v_columns, K_ROW, V_ROW, D, BLOCK_N, NORM, ROPE, HALVES, PADDED, V_PADDED,
                                 True)  # fmt: skip
    if KEYS % BLOCK_N != 0:
        if part == SPLITS - 1:
            acc, total, peak = _step(acc, total, peak, q, q2, K, V, Gain_k, Cos, Sin, KEYS // BLOCK_N * BLOCK_N, KEYS,
                                     scale, eps, columns, v_columns, K_ROW, V_ROW, D, BLOCK_N, NORM, ROPE, HALVES,
                                     PADDED, V_PADDED, False)  # fmt: skip
    inside = (rows < QUERIES)[:, None] & (v_columns < D)[None, :]
    if SPLITS == 1:
        Out += batch * O_BATCH + head * O_HEAD
        result = (acc / total[:, None]).to(Out.dtype.element_ty)
        tl.store(Out + rows[:, None] * O_ROW + v_columns[None, :], result, mask=inside)
    else:
        place = ((batch * HEADS + head) * SPLITS + part) * QUERIES
        tl.store(Partial + (place + rows[:, None]) * D + v_columns[None, :], acc, mask=inside)
        tl.store(Peaks + (place + rows) * 2, peak, mask=rows < QUERIES)
        tl.store(Peaks + (place + rows) * 2 + 1, total, mask=rows < QUERIES)


@triton.jit
def combine(Partial, Peaks, Out, HEADS: tl.constexpr, D: tl.constexpr, QUERIES: tl.constexpr, O_BATCH: tl.constexpr,
            O_HEAD: tl.constexpr, O_ROW: tl.constexpr, BLOCK_M: tl.constexpr, WIDE: tl.constexpr,
            SPLITS: tl.constexpr):  # fmt: skip
    """Joins what the splits of `attention` left. Grid: (blocks of queries, HEADS, batch)."""
    head = tl.program_id(1)
    batch = tl.program_id(2).to(tl.int64)
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.arange(0, WIDE)
    inside = rows < QUERIES
    both = inside[:, None] & (columns < D)[None, :]
    acc = tl.zeros([BLOCK_M, WIDE], tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    peak = tl.full([BLOCK_M], float("-inf"), tl.float32)
    for part in tl.static_range(SPLITS):
        place = ((batch * HEADS + head) * SPLITS + part) * QUERIES
        # A split that saw no keys left the maximum at minus infinity; a row outside gets 0 to keep NaN away.
        other = tl.load(Peaks + (place + rows) * 2, mask=inside, other=0.0)
        sum_ = tl.load(Peaks + (place + rows) * 2 + 1, mask=inside, other=1.0)
        values = tl.load(Partial + (place + rows[:, None]) * D + columns[None, :], mask=both, other=0.0)
        highest = tl.maximum(peak, other)
        old = tl.exp2(peak - highest)
        new = tl.exp2(other - highest)
        acc = acc * old[:, None] + values * new[:, None]
        total = total * old + sum_ * new
        peak = highest
    Out += batch * O_BATCH + head * O_HEAD
    result = (acc / total[:, None]).to(Out.dtype.element_ty)
    tl.store(Out + rows[:, None] * O_ROW + columns[None, :], result, mask=both)
