// A linear layer for Hopper (compute capability 9.0 alone) with the norm before it and what follows it inside:
// y = finish(norm(x) W^T + bias). TMA brings tiles, wgmma multiplies them, sums are FP32.
//
// A block has GROUPS consumer warp groups, a producer warp that keeps STAGES steps of 64 inner channels on their way, and
// helper warps that fetch what the end of a tile needs: each row's mean and root, bias and sums of W's rows. A tile of BM
// rows and BN columns is cut between the groups by rows, EACH times 64 for each; with SIDE, by columns; with ALTERNATE,
// each group has tiles of its own, and one finishes a tile while the other multiplies. Blocks form clusters of CM x CN
// tiles: a block loads a part of each tile and the TMA hands it to all that need it, CN blocks the same rows of x, CM
// blocks the same rows of W. With PARTS, as many blocks of a cluster share the inner channels of one tile; each sums up a
// run of its columns from all of them, through the others' shared memory. With BRIEF, parts hand over without waiting for
// each other's end, and tiles end in fewer instructions: the TMA brings rows of W in such an order that a thread has
// 2 ACROSS neighbouring columns of the product, not 2, and nothing is traded between threads before it is written.
//
// The norm is applied to the product: W (x - m) / s = (W x - m sum(W)) / s, with m and s from statistics that the kernel
// which wrote x left (of runs of channels: mean, and sum of squared distances from it; Chan et al. 1979 joins them).
//
// What of W fits into the stages is fetched before this kernel waits for the one before it (programmatic dependent
// launch), and with AHEAD the rest of the first tile is asked for into the L2.
//
// Constants, given by the compiler's command line (engines/kernels/linear_plan.py): GROUPS, EACH, SIDE, ALTERNATE, BN,
// STAGES, CM, CN, PARTS, RESIDENT (blocks a multiprocessor), AHEAD, BRIEF and ACROSS (2 or 4), BF16, ROWS (tokens a
// sample), INNER, COLUMNS, NORM (0 none, 1 layer, 2 rms), BIAS, ACTIVATION (0 none, 1 gelu, 2 gelu_tanh, 3 swiglu), HEADS
// and D (0: nothing is turned), QK_NORM, ROPE, RESIDUAL (0 none, 1 of each sample, 2 shared), STATISTICS; STAMPS for
// bench/timeline.py. wgmma_s, the product for the columns of a group, is generated (wgmma.py).

#ifndef BRIEF
#define BRIEF 0
#define ACROSS 1
#endif
// Groups that work on one tile, rows of a tile, and columns of a group.
#define TOGETHER (ALTERNATE ? 1 : GROUPS)
#define BM ((SIDE ? 1 : TOGETHER) * EACH * 64)
#define GN (SIDE ? BN / GROUPS : BN)
#define CLUSTER (CM * CN * PARTS)
#define STEPS ((INNER + 63) / 64)
#define A_BYTES (BM * 128)
#define B_BYTES (BN * 128)
// Columns that a group finishes.
#define OWN (GN / PARTS)
#define CONSUMERS (GROUPS * 128)
#if GROUPS == 1
#define PRODUCERS 64
#else
#define PRODUCERS 128
#endif
#define TILES_N ((COLUMNS + BN * CN - 1) / (BN * CN))
#define CONSUMER_REGISTERS "232"
#define PRODUCER_REGISTERS "40"
// Whether tiles reach over the last column.
#define RAGGED (COLUMNS % (BN * CN) != 0)
#define HELPERS (PRODUCERS - 32)
// What helpers write for a tile: mean and root of its rows, then bias and row sums of its columns.
#define NOTED (NORM || BIAS)
#define NOTES (BM * 2 + BN * 2)
#define BUFFERS (ALTERNATE ? 4 : 2)
// Whether a thread has the registers to ask for the residual, and for cosines and sines, before it multiplies; else the
// residual is asked for four steps of 16 columns ahead of its use.
#define EARLY (EACH * (GN / 2 + OWN / 4) <= 150)
#define FORESEEN (EARLY ? OWN / 16 : OWN / 16 < 4 ? OWN / 16 : 4)
#define EARLY_TURN (EACH == 1 && GN / 2 + D / 2 <= 170)
#define WIDTH (ACTIVATION == 3 ? COLUMNS / 2 : COLUMNS)
// What the other parts hand a block, and how many of its stages' tiles of x have room for that.
#define HANDED (CONSUMERS * EACH * OWN * 2 * (PARTS - 1))
#define HANDED_STAGES ((HANDED + A_BYTES - 1) / A_BYTES)
#define POSTED (BRIEF && PARTS > 1)
static_assert(!POSTED || HANDED_STAGES < STAGES, "parts hand over more than the stages hold that are free before the last");

// Tells that this thread has read, not that it has written: without the fence, which would hold the product up.
__device__ __forceinline__ void cluster_arrive_read() { asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory"); }
__device__ __forceinline__ void peer_arrive(u32 barrier) {
  // Not `.release.cluster`: this thread wrote nothing that others read, and the fence of that costs half a microsecond.
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}
#if POSTED
// Where the `piece`th 16 bytes of every consumer lie, from a_at on: in the stages that were free first, `oldest` and on.
__device__ __forceinline__ u32 handed_at(u32 piece, u32 oldest) {
  const u32 at = piece * CONSUMERS * 16;
  return (oldest + at / A_BYTES) % STAGES * A_BYTES + at % A_BYTES;
}
#endif
// A box of a matrix [rows, channels]; every block in `mask` (0: this one alone) gets it at the same address.
__device__ __forceinline__ void load_box(u32 to, const TensorMap* map, int x, int y, u32 barrier, unsigned short mask) {
  if (mask)
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%2, "
        "%3}], [%4], %5;" ::"r"(to),
        "l"(map), "r"(x), "r"(y), "r"(barrier), "h"(mask)
        : "memory");
  else
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(to),
        "l"(map), "r"(x), "r"(y), "r"(barrier)
        : "memory");
}
#if BRIEF
// As load_box, of W, whose rows 8 ACROSS m + 2 ACROSS q + 2 k + e are laid down as 8 ACROSS m + 8 k + 2 q + e: in a product,
// the thread with number q of four has columns 2 q and 2 q + 1 of every 8. `y` counts 8 ACROSS rows.
__device__ __forceinline__ void load_rows(u32 to, const TensorMap* map, int x, int y, u32 barrier, unsigned short mask) {
  if (mask)
    asm volatile(
        "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%2, "
        "%3, %3, %3, %4}], [%5], %6;" ::"r"(to),
        "l"(map), "r"(x), "r"(0), "r"(y), "r"(barrier), "h"(mask)
        : "memory");
  else
    asm volatile(
        "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %3, %3, %4}], "
        "[%5];" ::"r"(to),
        "l"(map), "r"(x), "r"(0), "r"(y), "r"(barrier)
        : "memory");
}
__device__ __forceinline__ void fetch_rows(const TensorMap* map, int x, int y) {
  asm volatile("cp.async.bulk.prefetch.tensor.5d.L2.global [%0, {%1, %2, %2, %2, %3}];" ::"l"(map), "r"(x), "r"(0), "r"(y)
               : "memory");
}
#endif
__device__ __forceinline__ void fetch_box(const TensorMap* map, int x, int y) {
  asm volatile("cp.async.bulk.prefetch.tensor.2d.L2.global [%0, {%1, %2}];" ::"l"(map), "r"(x), "r"(y) : "memory");
}

// erf(x / sqrt(2)): x times a polynomial in x^2, least absolute error (2e-5 after the product in GELU) up to 4.2, where it
// reaches 1.
__device__ __forceinline__ float erf_of_root(float x) {
  const float u = x * x;
  float p = fmaf(u, -4.75353958e-12f, 5.11558573e-10f);
  p = fmaf(u, p, -2.48090721e-08f);
  p = fmaf(u, p, 7.23843584e-07f);
  p = fmaf(u, p, -1.43620655e-05f);
  p = fmaf(u, p, 2.08116238e-04f);
  p = fmaf(u, p, -2.30180169e-03f);
  p = fmaf(u, p, 1.98113732e-02f);
  p = fmaf(u, p, -1.32855937e-01f);
  p = fmaf(u, p, 7.97845900e-01f);
  return fabsf(x) < 4.2f ? x * p : copysignf(1.f, x);
}
__device__ __forceinline__ float sigmoid(float x) { return __fdividef(1.f, 1.f + exp2_fast(-1.4426950408889634f * x)); }
__device__ __forceinline__ float activate(float x) {
#if ACTIVATION == 1 && BRIEF
  // relu(x) - t P(-t) with t = |x| and P the normal distribution, whose logarithm is close to a polynomial: least error in
  // GELU, 5e-6, and 1e-3 of it where that is less. Beyond all that was fitted, the last coefficient makes P nothing.
  const float t = fabsf(x);
  float p = fmaf(t, -0.000292798205f, 0.00564063266f);
  p = fmaf(t, p, -0.0478619651f);
  p = fmaf(t, p, -0.464568189f);
  p = fmaf(t, p, -1.14865676f);
  p = fmaf(t, p, -1.00033435f);
  return fmaf(-t, exp2_fast(p), fmaxf(x, 0.f));
#elif ACTIVATION == 1
  const float half = 0.5f * x;
  return fmaf(half, erf_of_root(x), half);
#elif ACTIVATION == 2
  // x (1 + tanh(z)) / 2 = x sigmoid(2 z)
  return x * sigmoid(1.5957691216057308f * fmaf(0.044715f * x * x, x, x));
#else
  return x;
#endif
}
__device__ __forceinline__ float quad_sum(float x) {
  x += __shfl_xor_sync(0xffffffff, x, 1);
  return x + __shfl_xor_sync(0xffffffff, x, 2);
}

// Marks of a block in the order of linear_plan.py's STAMPS: each thread's that comes there, by its multiprocessor's
// clock; beside the first and the last, nanoseconds by the GPU's.
#if STAMPS
__device__ __forceinline__ void stamp(unsigned long long* stamps, int mark) {
  unsigned long long clock, nanoseconds;
  asm volatile("mov.u64 %0, %%clock64;" : "=l"(clock)::"memory");
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(nanoseconds)::"memory");
  stamps += blockIdx.x * 8ull;
  stamps[mark] = clock;
  if (mark == 0) stamps[6] = nanoseconds;
  if (mark == 5) stamps[7] = nanoseconds;
}
#define STAMP(thread, mark) \
  if (threadIdx.x == (thread)) stamp(stamps, mark);
#else
#define STAMP(thread, mark)
#endif

struct Arguments {
  const float *statistics, *sums, *bias, *gain_q, *gain_k, *cosines, *sines;
  const unsigned short* residual;
  unsigned short* output;
  float* left;
  int runs, total;
  float eps, qk_eps;
};

// Where element `i` of a thread's OWN / 2 values lies: columns in steps of 8, two neighbours of one row, then of the row
// eight further down. With BRIEF, ACROSS such steps follow each other.
__device__ __forceinline__ int column_of(int i) {
#if BRIEF
  return i / (4 * ACROSS) * 8 * ACROSS + threadIdx.x % 4 * 2 * ACROSS + i / 4 % ACROSS * 2;
#else
  return i / 4 * 8 + threadIdx.x % 4 * 2;
#endif
}

#if NORM
// Mean of each row of a tile, and one over its root, from the statistics of its runs. Four lanes share a row, and a warp
// has several on their way at once: that takes one trip to the L2 where a lane for itself would take one after the other.
#define SHARING 4
#define ROW_STEP (HELPERS / SHARING)
#define ROWS_AT_ONCE (GROUPS == 1 ? 8 : 2)

__device__ __forceinline__ void note_rows(const Arguments& a, int row, int helper, float2* to) {
  const int lane = helper % SHARING;
  for (int begin = helper / SHARING; begin < BM; begin += ROWS_AT_ONCE * ROW_STEP) {
    const float2* of[ROWS_AT_ONCE];
    float2 first[ROWS_AT_ONCE];
    float sum[ROWS_AT_ONCE], squares[ROWS_AT_ONCE], within[ROWS_AT_ONCE];
#pragma unroll
    for (int j = 0; j < ROWS_AT_ONCE; ++j) {
      of[j] = reinterpret_cast<const float2*>(a.statistics) +
              static_cast<long long>(min(row + begin + j * ROW_STEP, a.total - 1)) * a.runs;
      // Distances from the first run's mean, so that one pass is exact enough.
      first[j] = of[j][0];
      sum[j] = squares[j] = within[j] = 0.f;
    }
#pragma unroll 3
    for (int i = lane; i < a.runs; i += SHARING)
#pragma unroll
      for (int j = 0; j < ROWS_AT_ONCE; ++j) {
        const float2 run = of[j][i];
        const float from = run.x - first[j].x;
        sum[j] += from;
        squares[j] = fmaf(from, from, squares[j]);
        within[j] += run.y;
      }
#pragma unroll
    for (int j = 0; j < ROWS_AT_ONCE; ++j) {
      const float shift = quad_sum(sum[j]) / a.runs, mean = first[j].x + shift, square = quad_sum(squares[j]) / a.runs;
      // Of the runs' means: their variance about the mean of all, or with RMS their mean square.
      const float apart = NORM == 1 ? square - shift * shift : square + first[j].x * (2.f * shift + first[j].x);
      const float root = rsqrtf(quad_sum(within[j]) / INNER + fmaxf(apart, 0.f) + a.eps);
      const int r = begin + j * ROW_STEP;
      if (lane == 0 && r < BM) to[r] = make_float2(mean, root);
    }
  }
}
#endif

#if BRIEF
static_assert(OWN % (8 * ACROSS) == 0 && BN / CM % (8 * ACROSS) == 0 && COLUMNS % (8 * ACROSS) == 0, "no such form");
// Steps of 8 ACROSS columns, whether this thread's are inside, and its columns of one of them: words of two.
#define RUNS (OWN / (8 * ACROSS))
#define LAST_RUNS (RUNS < 64 / (8 * ACROSS) ? RUNS : 64 / (8 * ACROSS))
#define SOON (EARLY ? RUNS : LAST_RUNS)
template <int N>
struct alignas(4 * N) Words {
  u32 of[N];
};
#endif
#if RESIDUAL && BRIEF
struct Residual {
  Words<ACROSS> given[SOON][2];

  // This thread's columns of both rows, for step `run`.
  __device__ __forceinline__ void ask(const Arguments& a, int row, int first, int run) {
    const int n = first + column_of(run * 4 * ACROSS);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int r = row + half * 8;
      Words<ACROSS>& to = given[run % SOON][half];
      to = {};
      if (r < a.total && (!RAGGED || n < COLUMNS))
        to = *reinterpret_cast<const Words<ACROSS>*>(
            a.residual + static_cast<long long>(RESIDUAL == 2 ? r % ROWS : r) * COLUMNS + n);
    }
  }
  __device__ __forceinline__ void ask(const Arguments& a, int row, int first) {
#pragma unroll
    for (int run = 0; run < SOON; ++run) ask(a, row, first, run);
  }
};
#elif RESIDUAL
struct Residual {
  uint2 given[FORESEEN][2];

  // Four neighbouring columns of both rows, for step `i` (in values of a thread).
  __device__ __forceinline__ void ask(const Arguments& a, int row, int first, int i) {
    const int n = first + i / 4 * 8 + threadIdx.x % 2 * 8 + threadIdx.x % 4 / 2 * 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int r = row + half * 8;
      uint2& to = given[i / 8 % FORESEEN][half];
      to = make_uint2(0, 0);
      if (r < a.total && (!RAGGED || n < COLUMNS))
        to = *reinterpret_cast<const uint2*>(a.residual + static_cast<long long>(RESIDUAL == 2 ? r % ROWS : r) * COLUMNS + n);
    }
  }
  __device__ __forceinline__ void ask(const Arguments& a, int row, int first) {
#pragma unroll
    for (int i = 0; i < 8 * FORESEEN; i += 8) ask(a, row, first, i);
  }
};
#else
struct Residual {};
#endif

#if HEADS && ROPE
// The same for every head: cosines and sines of the first half of the channels, of both rows.
struct Angles {
  float c[D / 4], s[D / 4];

  __device__ __forceinline__ void ask(const Arguments& a, int row) {
#pragma unroll
    for (int i = 0; i < D / 4; i += 2) {
      const int at = (row + i / 2 % 2 * 8) % ROWS * (D / 2) + column_of(i);
      const float2 cosine = __ldg(reinterpret_cast<const float2*>(a.cosines + at));
      const float2 sine = __ldg(reinterpret_cast<const float2*>(a.sines + at));
      c[i] = cosine.x, c[i + 1] = cosine.y, s[i] = sine.x, s[i + 1] = sine.y;
    }
  }
};
#else
struct Angles {};
#endif

// 64 rows of a tile, `row` the first of this thread's two, `first` the first of its OWN columns: from sums to output.
// `norms` holds mean and root of the thread's first row and on, `vectors` bias and row sums of its columns and on.
__device__ __forceinline__ void finish(float (&v)[OWN / 2], const Arguments& a, int row, int first, const float2* norms,
                                       const float* vectors, Residual& residual, const Angles& angles) {
#if ACTIVATION != 3 && !BRIEF
  const bool odd = threadIdx.x % 2;
#endif
#if NORM
  const float2 norm[2] = {norms[0], norms[8]};
#endif
#if NORM || BIAS
#pragma unroll
  for (int i = 0; i < OWN / 2; i += 4) {
    const float2 bias = *reinterpret_cast<const float2*>(vectors + column_of(i));
#if NORM == 1
    const float2 sum = *reinterpret_cast<const float2*>(vectors + BN + column_of(i));
#endif
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float &x = v[i + 2 * half], &y = v[i + 2 * half + 1];
#if NORM == 1
      x = fmaf(-norm[half].x, sum.x, x), y = fmaf(-norm[half].x, sum.y, y);
#endif
#if NORM
      x = fmaf(norm[half].y, x, bias.x), y = fmaf(norm[half].y, y, bias.y);
#else
      x += bias.x, y += bias.y;
#endif
    }
  }
#endif

#if HEADS
#pragma unroll
  for (int head = 0; head < OWN / D; ++head) {
    const int n = first + head * D;
    if (n >= 2 * HEADS * D) break;  // values pass
    float* const h = v + head * (D / 2);
#if QK_NORM
    const float* const gains = n < HEADS * D ? a.gain_q : a.gain_k;
    float square[2] = {0.f, 0.f};
#pragma unroll
    for (int i = 0; i < D / 2; ++i) square[i / 2 % 2] = fmaf(h[i], h[i], square[i / 2 % 2]);
#pragma unroll
    for (int half = 0; half < 2; ++half) square[half] = rsqrtf(quad_sum(square[half]) * (1.f / D) + a.qk_eps);
#pragma unroll
    for (int i = 0; i < D / 2; i += 4) {
      const float2 gain = __ldg(reinterpret_cast<const float2*>(gains + column_of(i)));
#pragma unroll
      for (int half = 0; half < 2; ++half) h[i + 2 * half] *= square[half] * gain.x, h[i + 2 * half + 1] *= square[half] * gain.y;
    }
#endif
#if ROPE
#pragma unroll
    for (int i = 0; i < D / 4; ++i) {
      const float x = h[i], y = h[i + D / 4];
      h[i] = x * angles.c[i] - y * angles.s[i];
      h[i + D / 4] = fmaf(y, angles.c[i], x * angles.s[i]);
    }
#endif
  }
#endif

#if BRIEF
#pragma unroll
  for (int run = 0; run < RUNS; ++run) {
    const int n = first + column_of(run * 4 * ACROSS);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int at = run * 4 * ACROSS + 2 * half, r = row + half * 8;
      const bool inside = r < a.total && (!RAGGED || n < COLUMNS);
#if ACTIVATION == 3
      Words<ACROSS / 2> words;
#pragma unroll
      for (int k = 0; k < ACROSS; k += 2) {
        const int i = at + 4 * k;
        words.of[k / 2] = pack(v[i] * sigmoid(v[i]) * v[i + 1], v[i + 4] * sigmoid(v[i + 4]) * v[i + 5]);
      }
      if (inside)
        *reinterpret_cast<Words<ACROSS / 2>*>(a.output + static_cast<long long>(row) * WIDTH + first / 2 +
                                              column_of(run * 4 * ACROSS) / 2 + half * 8 * WIDTH) = words;
#else
      Words<ACROSS> words;
#pragma unroll
      for (int k = 0; k < ACROSS; ++k) {
        float &low = v[at + 4 * k], &high = v[at + 4 * k + 1];
        low = activate(low), high = activate(high);
#if RESIDUAL
        float x, y;
        unpack(residual.given[run % SOON][half].of[k], x, y);
        low += x, high += y;
#endif
        words.of[k] = pack(low, high);
      }
      if (inside)
        *reinterpret_cast<Words<ACROSS>*>(a.output + static_cast<long long>(row) * COLUMNS + n + half * 8 * COLUMNS) = words;
#endif
    }
#if RESIDUAL
    if (run + SOON < RUNS) residual.ask(a, row, first, run + SOON);
#endif
  }
#elif ACTIVATION == 3
  // Two threads trade halves of what they have of two neighbouring steps of columns, so that each writes a word.
#pragma unroll
  for (int i = 0; i < OWN / 2; i += 8) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int at = i + 2 * half;
      const float low = v[at] * sigmoid(v[at]) * v[at + 1], high = v[at + 4] * sigmoid(v[at + 4]) * v[at + 5];
      const bool odd = threadIdx.x % 2;
      const float other = __shfl_xor_sync(0xffffffff, odd ? low : high, 1);
      const int r = row + half * 8, n = (first + i / 4 * 8) / 2 + (odd ? 4 : 0) + threadIdx.x % 4 / 2 * 2;
      if (r < a.total && (!RAGGED || n < WIDTH))
        *reinterpret_cast<u32*>(a.output + static_cast<long long>(r) * WIDTH + n) = odd ? pack(other, high) : pack(low, other);
    }
  }
#else
  // Two threads trade halves, so that each reads and writes four neighbouring columns: 32 bytes of a row at once.
#pragma unroll
  for (int i = 0; i < OWN / 2; i += 8) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int at = i + 2 * half, r = row + half * 8, n = first + i / 4 * 8 + (odd ? 8 : 0) + threadIdx.x % 4 / 2 * 4;
      float w[4] = {activate(v[at]), activate(v[at + 1]), activate(v[at + 4]), activate(v[at + 5])};
#if RESIDUAL
      const uint2 got = residual.given[i / 8 % FORESEEN][half];
      const u32 back = __shfl_xor_sync(0xffffffff, odd ? got.x : got.y, 1);
      float x, y, x2, y2;
      unpack(odd ? back : got.x, x, y);
      unpack(odd ? got.y : back, x2, y2);
      w[0] += x, w[1] += y, w[2] += x2, w[3] += y2;
#endif
      v[at] = w[0], v[at + 1] = w[1], v[at + 4] = w[2], v[at + 5] = w[3];
      const u32 low = pack(w[0], w[1]), high = pack(w[2], w[3]);
      const u32 other = __shfl_xor_sync(0xffffffff, odd ? low : high, 1);
      if (r < a.total && (!RAGGED || n < COLUMNS))
        *reinterpret_cast<uint2*>(a.output + static_cast<long long>(r) * COLUMNS + n) =
            odd ? make_uint2(other, high) : make_uint2(low, other);
    }
#if RESIDUAL
    if (i + 8 * FORESEEN < OWN / 2) residual.ask(a, row, first, i + 8 * FORESEEN);
#endif
  }
#endif

#if STATISTICS
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float sum = 0.f, squares = 0.f;
#pragma unroll
    for (int i = 2 * half; i < OWN / 2; i += 4) sum += v[i] + v[i + 1];
    const float m = quad_sum(sum) * (1.f / OWN);
#pragma unroll
    for (int i = 2 * half; i < OWN / 2; i += 4) {
      squares = fmaf(v[i] - m, v[i] - m, squares);
      squares = fmaf(v[i + 1] - m, v[i + 1] - m, squares);
    }
    squares = quad_sum(squares);
    const int r = row + half * 8;
    if (threadIdx.x % 4 == 0 && r < a.total && (!RAGGED || first < COLUMNS))
      reinterpret_cast<float2*>(a.left)[static_cast<long long>(r) * (COLUMNS / OWN) + first / OWN] = make_float2(m, squares);
  }
#endif
}

extern "C" __global__ void __launch_bounds__(CONSUMERS + PRODUCERS, RESIDENT)
    linear_sm90(const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap weights, const float* statistics,
                const float* sums, const float* bias, const float* gain_q, const float* gain_k, const float* cosines,
                const float* sines, const unsigned short* residual, unsigned short* output, float* left, int runs, int total,
                float eps, float qk_eps
#if STAMPS
                , unsigned long long* stamps
#endif
    ) {
  extern __shared__ unsigned char raw[];
  STAMP(0, 0)
  const u32 base = (shared_address(raw) + 1023) & ~1023u;
  const u32 a_at = base, b_at = a_at + STAGES * A_BYTES, full = b_at + STAGES * B_BYTES, empty = full + 8 * STAGES;
  const u32 posted = empty + 8 * STAGES;
  float* const notes = reinterpret_cast<float*>(raw + (posted + (POSTED ? 16 : 0) - shared_address(raw)));
  const u32 rank = CLUSTER > 1 ? cluster_rank() : 0;
  const int cm = rank % CM, cn = rank / CM % CN, part = rank / (CM * CN);
  if (threadIdx.x == CONSUMERS) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(&weights) : "memory");
    asm volatile("prefetch.tensormap [%0];" ::"l"(&x) : "memory");
  }
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < STAGES; ++stage) {
      barrier_init(full + 8 * stage, 1);
      // Every consumer warp group of every block that gets a part of its tiles from this one.
      barrier_init(empty + 8 * stage, TOGETHER * (CM + CN - 1));
    }
    if (POSTED) {
      barrier_init(posted, 1);
      barrier_expect(posted, HANDED);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  if (CLUSTER > 1) {
    cluster_arrive();
    cluster_wait();
  } else {
    __syncthreads();
  }
  const int tiles_m = (total + BM * CM - 1) / (BM * CM), tiles = tiles_m * TILES_N;
  const int begin = STEPS * part / PARTS, end = STEPS * (part + 1) / PARTS;
  const Arguments arguments = {statistics, sums,     bias, gain_q, gain_k, cosines, sines,
                               residual,   output, left, runs,   total,  eps,     qk_eps};

  if (threadIdx.x >= CONSUMERS) {
#if GROUPS > 1
    asm volatile("setmaxnreg.dec.sync.aligned.u32 " PRODUCER_REGISTERS ";");
#endif
    // Threads without work leave: the next kernel waits for their word, too.
    if (threadIdx.x < CONSUMERS + 32 ? threadIdx.x != CONSUMERS : !NOTED) return;
#if POSTED
    cluster_arrive_read();  // these read no stages
#endif
    if (threadIdx.x == CONSUMERS) {
      unsigned short a_mask = 0, b_mask = 0;
      if (CN > 1)
        for (int j = 0; j < CN; ++j) a_mask |= 1 << (cm + CM * j + CM * CN * part);
      if (CM > 1)
        for (int i = 0; i < CM; ++i) b_mask |= 1 << (i + CM * cn + CM * CN * part);
      const int a_row = cn * (BM / CN), b_row = cm * (BN / CM);
      auto load_a = [&](int tile, int k, u32 stage) {
        load_box(a_at + stage * A_BYTES + a_row * 128, &x, k * 64, (tile % tiles_m * CM + cm) * BM + a_row, full + 8 * stage,
                 a_mask);
      };
      auto load_b = [&](int tile, int k, u32 stage) {
#if BRIEF
        load_rows(b_at + stage * B_BYTES + b_row * 128, &weights, k * 64,
                  ((tile / tiles_m * CN + cn) * BN + b_row) / (8 * ACROSS), full + 8 * stage, b_mask);
#else
        load_box(b_at + stage * B_BYTES + b_row * 128, &weights, k * 64, (tile / tiles_m * CN + cn) * BN + b_row,
                 full + 8 * stage, b_mask);
#endif
      };
      // Nothing before this kernel writes weights.
      int tile = blockIdx.x / CLUSTER;
      const int early = tile < tiles ? (end - begin < STAGES ? end - begin : STAGES) : 0;
      for (int i = 0; i < early; ++i) {
        barrier_expect(full + 8 * i, A_BYTES + B_BYTES);
        load_b(tile, begin + i, i);
      }
#if AHEAD
      // Blocks of other rows would ask for the same.
      if (tile < tiles && tile % tiles_m == 0)
        for (int k = begin + early; k < end; ++k)
#if BRIEF
          fetch_rows(&weights, k * 64, ((tile / tiles_m * CN + cn) * BN + b_row) / (8 * ACROSS));
#else
          fetch_box(&weights, k * 64, (tile / tiles_m * CN + cn) * BN + b_row);
#endif
#endif
      STAMP(CONSUMERS, 1)
      // The next kernel may come once nothing before this one runs any more: what it reads then lies in no L1 as it was.
      asm volatile("griddepcontrol.wait;" ::: "memory");
      asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
      for (int i = 0; i < early; ++i) load_a(tile, begin + i, i);
      u32 step = 0;
      for (; tile < tiles; tile += gridDim.x / CLUSTER) {
        for (int k = begin; k < end; ++k, ++step) {
          if (step < early) continue;
          const u32 stage = step % STAGES;
          barrier_wait(empty + 8 * stage, (step / STAGES & 1) ^ 1);
          barrier_expect(full + 8 * stage, A_BYTES + B_BYTES);
          load_a(tile, k, stage);
          load_b(tile, k, stage);
        }
      }
    }
#if NOTED
    if (threadIdx.x >= CONSUMERS + 32) {
      const int helper = threadIdx.x - CONSUMERS - 32;
      auto note_columns = [&](int tile, float* to) {
        const int column = (tile / tiles_m * CN + cn) * BN;
        for (int n = helper; n < BN; n += HELPERS) {
          const bool inside = !RAGGED || column + n < COLUMNS;
          to[2 * BM + n] = BIAS && inside ? __ldg(bias + column + n) : 0.f;
          if (NORM == 1) to[2 * BM + BN + n] = inside ? __ldg(sums + column + n) : 0.f;
        }
      };
      // Nothing before this kernel writes these, either.
      if (blockIdx.x / CLUSTER < tiles) note_columns(blockIdx.x / CLUSTER, notes);
#if HEADS && QK_NORM && BRIEF
      // The gains come into the L1 now; the end of a tile would wait for them.
      if (helper < D / 32) {
        float there;
        asm volatile("ld.global.nc.f32 %0, [%1];" : "=f"(there) : "l"(gain_q + helper * 32));
        asm volatile("ld.global.nc.f32 %0, [%1];" : "=f"(there) : "l"(gain_k + helper * 32));
      }
#endif
      asm volatile("griddepcontrol.wait;" ::: "memory");
      asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
      u32 turn = 0;
      for (int tile = blockIdx.x / CLUSTER; tile < tiles; tile += gridDim.x / CLUSTER, ++turn) {
        float* const to = notes + turn % BUFFERS * NOTES;
#if NORM
        note_rows(arguments, (tile % tiles_m * CM + cm) * BM, helper, reinterpret_cast<float2*>(to));
#endif
        if (turn > 0) note_columns(tile, to);
        named_wait(1 + turn % 2, HELPERS + TOGETHER * 128);
      }
    }
#endif
#if POSTED
    cluster_wait();
#elif PARTS > 1
    cluster_arrive();
    cluster_wait();
    cluster_arrive();
    cluster_wait();
#endif
  } else {
#if GROUPS > 1
    asm volatile("setmaxnreg.inc.sync.aligned.u32 " CONSUMER_REGISTERS ";");
#endif
    const int group = threadIdx.x / 128, lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    // The blocks that wait for this one to have read: those of the same rows, and those of the same columns. One lane each.
    const int peers = CM + CN - 1;
    u32 peer = 0;
    if (lane < peers) peer = lane < CN ? cm + CM * lane + CM * CN * part : (lane - CN + (lane - CN >= cm)) + CM * cn + CM * CN * part;
    auto release = [&](u32 stage) {
      if (CLUSTER > 1) {
        // Warp `lane % 4` speaks for its group to block `lane`; all four have read when one of them has.
        if (lane < peers && lane % 4 == warp) peer_arrive(peer_address(empty + 8 * stage, peer));
      } else if (lane == 0 && warp == 0) {
        barrier_arrive(empty + 8 * stage);
      }
    };
    const int mine_m = SIDE || ALTERNATE ? 0 : group * EACH * 64, mine_n = SIDE ? group * GN : 0;
    Angles angles;
#if HEADS && ROPE && EARLY_TURN
    if (blockIdx.x / CLUSTER < tiles)
      angles.ask(arguments, (blockIdx.x / CLUSTER % tiles_m * CM + cm) * BM + mine_m + warp * 16 + lane / 4);
#endif
    asm volatile("griddepcontrol.wait;" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
    STAMP(0, 2)
    float sum[EACH][GN / 2];
    u32 step = 0, turn = 0;
    for (int tile = blockIdx.x / CLUSTER; tile < tiles; tile += gridDim.x / CLUSTER, ++turn) {
      if (ALTERNATE && turn % 2 != group) {
        step += end - begin;
        continue;
      }
      const int row = (tile % tiles_m * CM + cm) * BM + mine_m + warp * 16 + lane / 4;
      const int column = (tile / tiles_m * CN + cn) * BN + mine_n, first = column + part * OWN;
      Residual extra[EARLY ? EACH : 1];
#if RESIDUAL && EARLY
#pragma unroll
      for (int m = 0; m < EACH; ++m) extra[m].ask(arguments, row + m * 64, first);
#endif
#if HEADS && ROPE && EARLY_TURN
      if (turn > 0) angles.ask(arguments, row);
#endif
      // Not before the other group has multiplied its tile: a barrier's parity does not tell that tile's steps from these.
      if (ALTERNATE && turn > 0) named_wait(4 + group, 256);
      for (int k = begin; k < end; ++k, ++step) {
        const u32 stage = step % STAGES;
        barrier_wait(full + 8 * stage, step / STAGES & 1);
        if (step == 0) { STAMP(0, 3) }
        wgmma_fence();
#pragma unroll
        for (int inner = 0; inner < 4; ++inner) {
          const u64 b = descriptor(b_at + stage * B_BYTES + mine_n * 128 + inner * 32, 16);
#pragma unroll
          for (int m = 0; m < EACH; ++m)
            wgmma_s(sum[m], descriptor(a_at + stage * A_BYTES + (mine_m + m * 64) * 128 + inner * 32, 16), b,
                    k != begin || inner != 0);
        }
        wgmma_commit();
        wgmma_wait<1>();
        if (k != begin) release((step - 1) % STAGES);
#if POSTED
        // From here on, what this block no longer reads has room for what others hand it.
        if (k - begin == max(end - begin - STAGES + HANDED_STAGES, 0)) cluster_arrive_read();
#endif
      }
      wgmma_wait<0>();
      STAMP(0, 4)
#pragma unroll
      for (int m = 0; m < EACH; ++m) settle(sum[m]);
      if (ALTERNATE && tile + gridDim.x / CLUSTER < tiles) named_arrive(4 + (group ^ 1), 256);
      const float* const noted = notes + turn % BUFFERS * NOTES;
      const float2* const norms = reinterpret_cast<const float2*>(noted) + mine_m + warp * 16 + lane / 4;
      const float* const vectors = noted + 2 * BM + mine_n + part * OWN;
#if NOTED
      named_wait(1 + turn % 2, HELPERS + TOGETHER * 128);
#endif
      auto finish_one = [&](float (&v)[OWN / 2], int m) {
#if RESIDUAL && !EARLY
        extra[0].ask(arguments, row + m * 64, first);
#endif
#if HEADS && ROPE && !EARLY_TURN
        angles.ask(arguments, row + m * 64);
#endif
        finish(v, arguments, row + m * 64, first, norms + m * 64, vectors, extra[EARLY ? m : 0], angles);
      };
#if PARTS == 1
      release((step - 1) % STAGES);
#pragma unroll
      for (int m = 0; m < EACH; ++m) finish_one(sum[m], m);
#else
      // All blocks of the cluster have multiplied: their stages hold nothing that is still wanted.
#if !POSTED
      cluster_arrive();
#endif
      cluster_wait();
#pragma unroll
      for (int other = 0; other < PARTS; ++other) {
        if (other == part) continue;
        // Slots of a block are numbered by the parts they come from, its own left out.
        const int slot = part - (part > other);
        const u32 peer_rank = cm + CM * cn + CM * CN * other;
#if POSTED
        const u32 there = peer_address(a_at, peer_rank) + threadIdx.x * 16, known = peer_address(posted, peer_rank);
        const u32 oldest = (STEPS * (other + 1) / PARTS - STEPS * other / PARTS) % STAGES;
#else
        const u32 there = peer_address(base, peer_rank) + (slot * CONSUMERS * EACH * (OWN / 8) + threadIdx.x) * 16;
#endif
#pragma unroll
        for (int m = 0; m < EACH; ++m)
#pragma unroll
          for (int i = 0; i < OWN / 8; ++i) {
            const float* from = sum[m] + other * (OWN / 2) + i * 4;
#if POSTED
            send(there + handed_at((slot * EACH + m) * (OWN / 8) + i, oldest), from[0], from[1], from[2], from[3], known);
#else
            asm volatile("st.shared::cluster.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(there + (m * (OWN / 8) + i) * CONSUMERS * 16),
                         "f"(from[0]), "f"(from[1]), "f"(from[2]), "f"(from[3])
                         : "memory");
#endif
          }
      }
#if !POSTED
      cluster_arrive();
#endif
      float mine[EACH][OWN / 2];
#pragma unroll
      for (int m = 0; m < EACH; ++m)
#pragma unroll
        for (int i = 0; i < OWN / 2; ++i) {
          mine[m][i] = sum[m][i];
#pragma unroll
          for (int other = 1; other < PARTS; ++other)
            if (other == part) mine[m][i] = sum[m][other * (OWN / 2) + i];
        }
#if POSTED
      barrier_wait_cluster(posted, 0);
#else
      cluster_wait();
#endif
#pragma unroll
      for (int slot = 0; slot < PARTS - 1; ++slot)
#pragma unroll
        for (int m = 0; m < EACH; ++m)
#pragma unroll
          for (int i = 0; i < OWN / 8; ++i) {
#if POSTED
            const float4 got =
                sent(a_at + handed_at((slot * EACH + m) * (OWN / 8) + i, (end - begin) % STAGES) + threadIdx.x * 16);
#else
            const float4 got = sent(base + (((slot * EACH + m) * (OWN / 8) + i) * CONSUMERS + threadIdx.x) * 16);
#endif
            mine[m][i * 4] += got.x, mine[m][i * 4 + 1] += got.y, mine[m][i * 4 + 2] += got.z, mine[m][i * 4 + 3] += got.w;
          }
#pragma unroll
      for (int m = 0; m < EACH; ++m) finish_one(mine[m], m);
#endif
    }
  }
  STAMP(0, 5)
  // Nobody may leave while others still write into its shared memory.
  if (CLUSTER > 1 && PARTS == 1) {
    cluster_arrive();
    cluster_wait();
  }
}
