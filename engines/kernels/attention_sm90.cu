// Fused attention for Hopper (compute capability 9.0 alone): TMA brings tiles, wgmma multiplies them.
//
// A block has one producer warp group and WGS consumer warp groups. The producer keeps STAGES tiles of keys and of values
// on their way; each consumer warp group owns 64 rows of queries and walks over the keys with a running maximum and sum
// (FlashAttention-2, arXiv 2307.08691). The product of one block of keys with the queries is given to the tensor cores
// before the previous block's product with the values, so that both run while the softmax of the next one is computed
// (FlashAttention-3, arXiv 2407.08608), and warp groups take turns in giving work to the tensor cores (TURNS).
//
// Constants, given by the compiler's command line (engines/kernels/plan_sm90.py):
//   D                     head size, 64 or 128
//   WGS, BN, STAGES       consumer warp groups (64 queries each), keys a block, tiles on their way
//   TURNS                 1 where warp groups take turns
//   RESIDENT              blocks of a multiprocessor: while one fills or empties its pipeline, the others multiply
//   OVERLAP               1: the whole softmax runs beside the product with the values, else what the compiler makes of it:
//                         the search for the maximum alone
//   AHEAD                 1: queries have room for two tiles, so that the next tile's loads do not wait until this one's
//                         rows are out
//   QUERIES, KEYS, HEADS
//   BF16                  1 for BF16, 0 for FP16
//   Q_X, Q_XH, Q_ZB, Q_ZH and the same for K, V, O: a head's tile begins at column X + head * XH of plane
//                         batch * ZB + head * ZH of a tensor [planes, tokens, columns]
//   O_COLUMNS             columns of the output's tensor
//   INSIDE                1: QK-RMSNorm (NORM) and RoPE (ROPE) are done here, in shared memory: of the queries and the first
//                         block of keys by all warps, of the other blocks by the producer's while the consumers work. For
//                         lengths whose keys all fit (BLOCKS == STAGES) and one tile a block.
//   PARTS                 0: a block computes whole tiles. Otherwise the work of all tiles is cut into as many equal runs
//                         as there are blocks; what a run has of a tile that others share goes to `partial` and `peaks`,
//                         and the kernel `attention_sm90_join` joins it.
//   SHARERS               2: two blocks, a cluster, have the keys of one tile between them. Each gives the other its sums
//                         for half of the columns, and finishes the other half. For heads of 128 and one tile a block.
//   TURNERS               with INSIDE, as many blocks of one head, a cluster, turn a part of its blocks of keys each, and
//                         give them to the others. For lengths of TURNERS tiles of queries.
// wgmma_s and wgmma_o, the products for BN and D, are generated (wgmma.py) and stand before this text, after
// half.cuh and hopper.cuh.

#ifndef SHARERS
#define SHARERS 1
#endif
#ifndef TURNERS
#define TURNERS 1
#endif
#define INFINITY __int_as_float(0x7f800000)
#define BM (WGS * 64)
#define THREADS ((WGS + 1) * 128)
#define PANELS (D / 64)
#define TILES_M ((QUERIES + BM - 1) / BM)
#define BLOCKS ((KEYS + BN - 1) / BN)
#define Q_BYTES (BM * D * 2)
#define Q_TILES (AHEAD ? 2 : 1)
#define KV_BYTES (BN * D * 2)
// Warp groups trade registers: the producer's gives some up, then the consumers' get what they need.
#define TRADE (WGS > 1 || RESIDENT > 1)
// Of a thread when its block begins.
#define FIRST_REGISTERS (65536 / (RESIDENT * THREADS) / 8 * 8)
#if RESIDENT > 1
#define CONSUMER_REGISTERS ((FIRST_REGISTERS * (WGS + 1) - PRODUCER_REGISTERS) / WGS / 8 * 8)
#define PRODUCER_REGISTERS 24
#elif WGS == 3
#define CONSUMER_REGISTERS 160
#define PRODUCER_REGISTERS 32
#elif INSIDE
#define CONSUMER_REGISTERS 208
#define PRODUCER_REGISTERS 88
#else
#define CONSUMER_REGISTERS 240
#define PRODUCER_REGISTERS 24
#endif
static_assert(!TRADE || (WGS * CONSUMER_REGISTERS + PRODUCER_REGISTERS) * 128 <= FIRST_REGISTERS * THREADS,
              "consumers would wait for registers that nobody gives up");

#if SHARERS > 1
static_assert(SHARERS == PANELS && !INSIDE && !PARTS && !AHEAD && BLOCKS >= SHARERS, "no such form");
// What a thread gives the other block: 16 bytes at a time, its sums for one panel, then highest logits and sums of rows.
#define PIECES (D / SHARERS / 8 + 1)
#define GIVEN (WGS * 128 * PIECES * 16)
#endif
#if TURNERS > 1
static_assert(INSIDE && BLOCKS % TURNERS == 0 && TILES_M == TURNERS && STAGES == BLOCKS, "no such form");
#define TURNED (BLOCKS / TURNERS)  // blocks of keys that one block turns
#endif

__device__ __forceinline__ void load_tile(u32 to, const TensorMap* map, int x, int y, int z, u32 barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], [%5];" ::"r"(to),
      "l"(map), "r"(x), "r"(y), "r"(z), "r"(barrier)
      : "memory");
}
__device__ __forceinline__ void store_tile(const TensorMap* map, int x, int y, int z, u32 from) {
  asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%1, %2, %3}], [%4];" ::"l"(map), "r"(x),
               "r"(y), "r"(z), "r"(from)
               : "memory");
}

#if INSIDE
__device__ __forceinline__ void unpack8(uint4 from, float (&to)[8]) {
  const u32 words[4] = {from.x, from.y, from.z, from.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) unpack(words[i], to[2 * i], to[2 * i + 1]);
}
__device__ __forceinline__ void load8(const float* from, float (&to)[8]) {
  const float4 a = __ldg(reinterpret_cast<const float4*>(from)), b = __ldg(reinterpret_cast<const float4*>(from) + 1);
  to[0] = a.x, to[1] = a.y, to[2] = a.z, to[3] = a.w, to[4] = b.x, to[5] = b.y, to[6] = b.z, to[7] = b.w;
}
#if TURNERS > 1
__device__ __forceinline__ void hand(const uint4* at, u32 rank) {
  const uint4 words = *at;
  asm volatile("st.shared::cluster.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(peer_address(shared_address(at), rank)),
               "r"(words.x), "r"(words.y), "r"(words.z), "r"(words.w)
               : "memory");
}
#endif
// RMSNorm over the head and RoPE of a tile of ROWS rows, in place. A thread does 8 channels of some rows and their
// partners half a head away; D / 16 threads do a row. The tables are fetched before the tile is there, because both take
// long to come.
template <int ROWS, int WORKERS>
struct Turn {
  static constexpr int LANES = D / 16, EACH = (ROWS * LANES + WORKERS - 1) / WORKERS;
  float c[EACH][8], s[EACH][8];

  __device__ __forceinline__ static int row(int i) { return threadIdx.x / LANES + i * (WORKERS / LANES); }

  // `first` is the token of row 0.
  __device__ __forceinline__ void fetch(const float* cosines, const float* sines, int first, int tokens) {
#if ROPE
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
      const int token = min(first + row(i), tokens - 1), at = token * (D / 2) + threadIdx.x % LANES * 8;
      load8(cosines + at, c[i]);
      load8(sines + at, s[i]);
    }
#endif
  }

  // With `others`, in the other blocks of the cluster as well, at the same place.
  template <bool others = false>
  __device__ __forceinline__ void apply(unsigned char* tile, const float (&g)[8], const float (&g2)[8], float eps) {
    const int chunk = threadIdx.x % LANES, partner = LANES + chunk;
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
      const int r = row(i);
      if (ROWS * LANES % WORKERS != 0 && r >= ROWS) break;  // whole warps
      float a[8], b[8];
      uint4* at = reinterpret_cast<uint4*>(tile + r * 128 + ((chunk ^ (r & 7)) << 4));
      uint4* at2 = reinterpret_cast<uint4*>(tile + partner / 8 * ROWS * 128 + r * 128 + ((partner % 8 ^ (r & 7)) << 4));
      unpack8(*at, a);
      unpack8(*at2, b);
#if NORM
      float square = 0.f;
#pragma unroll
      for (int k = 0; k < 8; ++k) square = fmaf(a[k], a[k], fmaf(b[k], b[k], square));
#pragma unroll
      for (int lane = 1; lane < LANES; lane *= 2) square += __shfl_xor_sync(0xffffffff, square, lane);
      const float by = rsqrtf(square * (1.f / D) + eps);
#pragma unroll
      for (int k = 0; k < 8; ++k) a[k] *= by * g[k], b[k] *= by * g2[k];
#endif
#if ROPE
#pragma unroll
      for (int k = 0; k < 8; ++k) {
        const float turned = a[k] * c[i][k] - b[k] * s[i][k];
        b[k] = fmaf(b[k], c[i][k], a[k] * s[i][k]);
        a[k] = turned;
      }
#endif
      *at = make_uint4(pack(a[0], a[1]), pack(a[2], a[3]), pack(a[4], a[5]), pack(a[6], a[7]));
      *at2 = make_uint4(pack(b[0], b[1]), pack(b[2], b[3]), pack(b[4], b[5]), pack(b[6], b[7]));
#if TURNERS > 1
      if (others) {
        const u32 rank = cluster_rank();
#pragma unroll
        for (int far = 1; far < TURNERS; ++far) {
          hand(at, (rank + far) % TURNERS);
          hand(at2, (rank + far) % TURNERS);
        }
      }
#endif
    }
  }
};
#endif

// One run of blocks of keys over one tile of queries.
struct Work {
  int tile, first, last;  // blocks first..last-1 of BLOCKS
};
#if PARTS
// Where block `block` of `grid` begins, counted in blocks of keys over all tiles, one tile after the other.
__device__ __forceinline__ long long share(int block, int grid, int tiles) {
  return static_cast<long long>(tiles) * BLOCKS * block / grid;
}
#define WORK_LOOP(tiles)                                                                                         \
  for (long long at = share(blockIdx.x, gridDim.x, tiles), until = share(blockIdx.x + 1, gridDim.x, tiles);        \
       at < until;                                                                                               \
       at += work.last - work.first)                                                                             \
    if (work.tile = static_cast<int>(at / BLOCKS), work.first = static_cast<int>(at % BLOCKS),                    \
        work.last = static_cast<int>(until - at < BLOCKS - work.first ? work.first + (until - at) : BLOCKS), true)
#elif SHARERS > 1
#define WORK_LOOP(tiles)                                                                                  \
  for (work.tile = blockIdx.x / SHARERS, work.first = BLOCKS * cluster_rank() / SHARERS,                  \
      work.last = BLOCKS * (cluster_rank() + 1) / SHARERS;                                                \
       work.tile < (tiles); work.tile += gridDim.x)
#else
#define WORK_LOOP(tiles)                                                                       \
  for (work.tile = blockIdx.x, work.first = 0, work.last = BLOCKS; work.tile < (tiles);        \
       work.tile += gridDim.x)
#endif

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
    attention_sm90(const __grid_constant__ TensorMap queries, const __grid_constant__ TensorMap keys,
                   const __grid_constant__ TensorMap values, const __grid_constant__ TensorMap output,
                   const float* gain_q, const float* gain_k, const float* cosines, const float* sines, float* partial,
                   float* peaks, float scale, float eps, int tiles) {
  extern __shared__ unsigned char raw[];
  const u32 base = (shared_address(raw) + 1023) & ~1023u;
  const u32 q_at = base, k_at = q_at + Q_TILES * Q_BYTES, v_at = k_at + STAGES * KV_BYTES;
  const u32 barriers = v_at + STAGES * KV_BYTES;
  const u32 q_full = barriers, q_empty = q_full + 8 * Q_TILES;
  const u32 k_full = q_empty + 8 * Q_TILES, k_empty = k_full + 8 * STAGES;
  const u32 v_full = k_empty + 8 * STAGES, v_empty = v_full + 8 * STAGES;
  // Where consumers wait for keys: when they have come, or when they have been turned.
  const u32 k_ready = INSIDE ? v_empty + 8 * STAGES : k_full;
#if SHARERS > 1
  const u32 given_full = v_empty + 8 * STAGES, given_at = (given_full + 8 + 15) & ~15u;
#endif
  const int group = threadIdx.x / 128;  // 0 is the producer
  if (threadIdx.x == 0) {
    for (int tile = 0; tile < Q_TILES; ++tile) {
      barrier_init(q_full + 8 * tile, 1);
      barrier_init(q_empty + 8 * tile, WGS);
    }
    for (int stage = 0; stage < STAGES; ++stage) {
      barrier_init(k_full + 8 * stage, 1);
      barrier_init(v_full + 8 * stage, 1);
      barrier_init(k_empty + 8 * stage, WGS * 4);
      barrier_init(v_empty + 8 * stage, WGS * 4);
      if (INSIDE) barrier_init(k_ready + 8 * stage, 4);
    }
#if SHARERS > 1
    barrier_init(given_full, 1);
    barrier_expect(given_full, GIVEN);
#endif
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
#if SHARERS > 1 || TURNERS > 1
  cluster_arrive();  // who writes into another block's shared memory waits until that block has begun
#endif
  __syncthreads();
  // A kernel before this one may still be preparing queries and keys; the next one may come as far as this line.
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
  Work work;

#if INSIDE
  {
    const int row = blockIdx.x % TILES_M * BM, head = blockIdx.x / TILES_M % HEADS, batch = blockIdx.x / TILES_M / HEADS;
    if (threadIdx.x == 0) {
      // Keys first, there is most to do with them; in the order of their use. Where blocks share them, this one's alone.
#if TURNERS > 1
      for (int step = cluster_rank() * TURNED, end = step + TURNED; step < end; ++step) {
#else
      for (int step = 0; step < BLOCKS; ++step) {
#endif
        barrier_expect(k_full + 8 * step, KV_BYTES);
        for (int panel = 0; panel < PANELS; ++panel)
          load_tile(k_at + step * KV_BYTES + panel * BN * 128, &keys, K_X + head * K_XH + panel * 64,
                    (BLOCKS - 1 - step) * BN, batch * K_ZB + head * K_ZH, k_full + 8 * step);
      }
      barrier_expect(q_full, Q_BYTES);
      for (int panel = 0; panel < PANELS; ++panel)
        load_tile(q_at + panel * BM * 128, &queries, Q_X + head * Q_XH + panel * 64, row, batch * Q_ZB + head * Q_ZH,
                  q_full);
      for (int step = 0; step < BLOCKS; ++step) {
        barrier_expect(v_full + 8 * step, KV_BYTES);
        for (int panel = 0; panel < PANELS; ++panel)
          load_tile(v_at + step * KV_BYTES + panel * BN * 128, &values, V_X + head * V_XH + panel * 64,
                    (BLOCKS - 1 - step) * BN, batch * V_ZB + head * V_ZH, v_full + 8 * step);
      }
    }
    float gain[4][8];
#if NORM
    for (int half = 0; half < 2; ++half) {
      load8(gain_k + half * (D / 2) + threadIdx.x % (D / 16) * 8, gain[half]);
      load8(gain_q + half * (D / 2) + threadIdx.x % (D / 16) * 8, gain[2 + half]);
    }
#endif
    unsigned char* const shared = raw - shared_address(raw);  // plus an address in shared memory: a pointer to it
#if TURNERS > 1
    Turn<BM, THREADS> of_queries;
    const int mine = cluster_rank() * TURNED;
    Turn<BN, THREADS> of_keys[TURNED];
#pragma unroll
    for (int i = 0; i < TURNED; ++i) of_keys[i].fetch(cosines, sines, (BLOCKS - 1 - mine - i) * BN, KEYS);
    cluster_wait();
#pragma unroll
    for (int i = 0; i < TURNED; ++i) {
      barrier_wait(k_full + 8 * (mine + i), 0);
      of_keys[i].apply<true>(shared + k_at + (mine + i) * KV_BYTES, gain[0], gain[1], eps);
    }
    of_queries.fetch(cosines, sines, row, QUERIES);
#else
    Turn<BN, THREADS> of_keys;
    Turn<BM, THREADS> of_queries;
    of_keys.fetch(cosines, sines, (BLOCKS - 1) * BN, KEYS);
    of_queries.fetch(cosines, sines, row, QUERIES);
    barrier_wait(k_full, 0);
    of_keys.apply(shared + k_at, gain[0], gain[1], eps);
#endif
    barrier_wait(q_full, 0);
    of_queries.apply(shared + q_at, gain[2], gain[3], eps);
#if TURNERS > 1
    // The others' writes, too, must be seen by the tensor cores of this block.
    asm volatile("fence.proxy.async;" ::: "memory");
    cluster_arrive();
    cluster_wait();
    asm volatile("fence.proxy.async;" ::: "memory");
#else
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncthreads();
#endif
    if (group == 0) {
#if TRADE
      asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(PRODUCER_REGISTERS));
#endif
#if TURNERS > 1
      return;
#endif
      // The tables of a block are fetched while the one before it is turned.
      Turn<BN, 128> ahead[2];
      if (BLOCKS > 1) ahead[1].fetch(cosines, sines, (BLOCKS - 2) * BN, KEYS);
#pragma unroll
      for (int step = 1; step < BLOCKS; ++step) {
        if (step + 1 < BLOCKS) ahead[(step + 1) % 2].fetch(cosines, sines, (BLOCKS - 2 - step) * BN, KEYS);
        barrier_wait(k_full + 8 * step, 0);
        ahead[step % 2].apply(shared + k_at + step * KV_BYTES, gain[0], gain[1], eps);
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        __syncwarp();
        if (threadIdx.x % 32 == 0) barrier_arrive(k_ready + 8 * step);
      }
      return;
    }
  }
#endif
  if (group == 0) {
#if TRADE
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(PRODUCER_REGISTERS));
#endif
    if (!INSIDE && threadIdx.x == 0) {
      u32 step = 0, turn = 0;
      WORK_LOOP(tiles) {
        const int row = work.tile % TILES_M * BM, head = work.tile / TILES_M % HEADS, batch = work.tile / TILES_M / HEADS;
        const u32 place = turn % Q_TILES;
        barrier_wait(q_empty + 8 * place, (turn / Q_TILES & 1) ^ 1);
        barrier_expect(q_full + 8 * place, Q_BYTES);
        for (int panel = 0; panel < PANELS; ++panel)
          load_tile(q_at + place * Q_BYTES + panel * BM * 128, &queries, Q_X + head * Q_XH + panel * 64, row,
                    batch * Q_ZB + head * Q_ZH, q_full + 8 * place);
        // The last block of keys comes first: it may reach over the end, and is masked outside the loop.
        for (int block = work.last - 1; block >= work.first; --block, ++step) {
          const u32 stage = step % STAGES, parity = (step / STAGES & 1) ^ 1;
          barrier_wait(k_empty + 8 * stage, parity);
          barrier_expect(k_full + 8 * stage, KV_BYTES);
          for (int panel = 0; panel < PANELS; ++panel)
            load_tile(k_at + stage * KV_BYTES + panel * BN * 128, &keys, K_X + head * K_XH + panel * 64, block * BN,
                      batch * K_ZB + head * K_ZH, k_full + 8 * stage);
          barrier_wait(v_empty + 8 * stage, parity);
          barrier_expect(v_full + 8 * stage, KV_BYTES);
          for (int panel = 0; panel < PANELS; ++panel)
            load_tile(v_at + stage * KV_BYTES + panel * BN * 128, &values, V_X + head * V_XH + panel * 64, block * BN,
                      batch * V_ZB + head * V_ZH, v_full + 8 * stage);
        }
        ++turn;
      }
    }
#if SHARERS > 1
    cluster_wait();
#endif
  } else {
#if TRADE
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(CONSUMER_REGISTERS));
#endif
    const int consumer = group - 1, thread = threadIdx.x % 128, lane = threadIdx.x % 32, warp = thread / 32;
    const u32 my_place = q_at + consumer * 64 * 128;
    float s[BN / 2], o[D / 2];
    u32 p[BN / 4];
    u32 step = 0, turn = 0;
    scale *= 1.4426950408889634f;  // exp2 is what the hardware has
#if TURNS
    if (consumer == 0) named_arrive(2 + WGS - 1, 256);  // as if the last one had just ended its turn
#endif
    WORK_LOOP(tiles) {
      const u32 place = turn % Q_TILES, my_q = my_place + place * Q_BYTES;
      float peak[2] = {-INFINITY, -INFINITY}, total[2] = {0.f, 0.f};
      auto my_turn = [&] {
#if TURNS
        named_wait(2 + (consumer + WGS - 1) % WGS, 256);
#endif
      };
      auto next_turn = [&] {
#if TURNS
        named_arrive(2 + consumer, 256);
#endif
      };
      auto logits = [&](u32 stage) {
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < D / 16; ++k) {
          const u32 panel = k / 4, inside = k % 4 * 32;
          wgmma_s(s, descriptor(my_q + panel * BM * 128 + inside, 16),
                  descriptor(k_at + stage * KV_BYTES + panel * BN * 128 + inside, 16), k != 0);
        }
        wgmma_commit();
      };
      auto product = [&](u32 stage, bool add) {
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < BN / 16; ++k)
          wgmma_o(o, p + 4 * k, descriptor(v_at + stage * KV_BYTES + k * 16 * 128, BN * 128), add || k != 0);
        wgmma_commit();
      };
      auto release = [&](u32 barrier) {
        if (lane == 0) barrier_arrive(barrier);
      };
      float shrink[2];
      // Weights out of logits, in place; `shrink` is what the earlier sums and rows are worth under the new maximum.
      auto softmax = [&] {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          float highest = s[2 * half];
#pragma unroll
          for (int i = 0; i < BN / 8; ++i) highest = fmaxf(highest, fmaxf(s[4 * i + 2 * half], s[4 * i + 2 * half + 1]));
          highest = fmaxf(highest, __shfl_xor_sync(0xffffffff, highest, 1));
          highest = fmaxf(highest, __shfl_xor_sync(0xffffffff, highest, 2));
          highest = fmaxf(highest, peak[half]);
          shrink[half] = exp2_fast((peak[half] - highest) * scale);
          peak[half] = highest;
          const float shift = highest * scale;
          float sum0 = 0.f, sum1 = 0.f;
#pragma unroll
          for (int i = 0; i < BN / 8; ++i) {
            s[4 * i + 2 * half] = exp2_fast(fmaf(s[4 * i + 2 * half], scale, -shift));
            s[4 * i + 2 * half + 1] = exp2_fast(fmaf(s[4 * i + 2 * half + 1], scale, -shift));
            sum0 += s[4 * i + 2 * half];
            sum1 += s[4 * i + 2 * half + 1];
          }
          total[half] = total[half] * shrink[half] + (sum0 + sum1);
        }
      };
      auto round = [&] {
#pragma unroll
        for (int i = 0; i < BN / 4; ++i) p[i] = pack(s[2 * i], s[2 * i + 1]);
      };

      barrier_wait(q_full + 8 * place, turn / Q_TILES & 1);
      u32 stage = step % STAGES, parity = step / STAGES & 1;
      if (!INSIDE) barrier_wait(k_ready + 8 * stage, parity);
      my_turn();
      logits(stage);
      next_turn();
      wgmma_wait<0>();
      settle(s);
      release(k_empty + 8 * stage);
      if (KEYS % BN != 0 && work.last == BLOCKS) {
        const int left = KEYS - (BLOCKS - 1) * BN;
#pragma unroll
        for (int i = 0; i < BN / 2; ++i)
          if (i / 4 * 8 + lane % 4 * 2 + i % 2 >= left) s[i] = -INFINITY;
      }
      softmax();
      round();
#if AHEAD
      // The rows of the tile before have left their place meanwhile: the queries of the tile after may come.
      if (thread == 0 && turn > 0) {
        asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
        barrier_arrive(q_empty + 8 * (place ^ 1));
      }
#endif
      bool add = false;
      for (int block = work.last - 2; block >= work.first; --block) {
        const u32 now = stage, now_parity = parity;
        ++step;
        stage = step % STAGES, parity = step / STAGES & 1;
        if (TURNERS == 1) barrier_wait(k_ready + 8 * stage, parity);
        my_turn();
        logits(stage);
        barrier_wait(v_full + 8 * now, now_parity);
        product(now, add);
        next_turn();
        add = true;
        wgmma_wait<1>();
        settle(s);
        release(k_empty + 8 * stage);
        softmax();
#if OVERLAP
        // ptxas moves the wait below up to where its product begins, over the exponentials, which it does not know to be
        // work meanwhile; over the border between basic blocks that this wait makes, it does not. What is waited for has
        // been asked for before the keys of the step after: nothing that this group still holds keeps it from coming.
        barrier_wait(v_full + 8 * stage, parity);
#endif
        wgmma_wait<0>();
        settle(o);
        settle(s);
        release(v_empty + 8 * now);
#pragma unroll
        for (int i = 0; i < D / 2; ++i) o[i] *= shrink[i / 2 % 2];
        round();
      }
      barrier_wait(v_full + 8 * stage, parity);
      my_turn();
      product(stage, add);
      next_turn();
      wgmma_wait<0>();
      settle(o);
      release(v_empty + 8 * stage);
      ++step;

#pragma unroll
      for (int half = 0; half < 2; ++half) {
        total[half] += __shfl_xor_sync(0xffffffff, total[half], 1);
        total[half] += __shfl_xor_sync(0xffffffff, total[half], 2);
      }
      const int row = work.tile % TILES_M * BM, head = work.tile / TILES_M % HEADS, batch = work.tile / TILES_M / HEADS;
#if PARTS
      if (work.first != 0 || work.last != BLOCKS) {
        // Slot 2b holds what block b has of its first tile, 2b + 1 what it has of its last one.
        const int slot = 2 * blockIdx.x + (work.first == 0);
        float* to = partial + static_cast<long long>(slot) * BM * D + (consumer * 64 + warp * 16) * D;
#pragma unroll
        for (int i = 0; i < D / 2; i += 2) {
          const int r = lane / 4 + i / 2 % 2 * 8, c = i / 4 * 8 + lane % 4 * 2;
          *reinterpret_cast<float2*>(to + r * D + c) = make_float2(o[i], o[i + 1]);
        }
        if (lane % 4 == 0)
          for (int half = 0; half < 2; ++half) {
            const int r = consumer * 64 + warp * 16 + lane / 4 + half * 8;
            *reinterpret_cast<float2*>(peaks + (slot * BM + r) * 2) = make_float2(peak[half] * scale, total[half]);
          }
        named_wait(2 + WGS + consumer, 128);  // every warp is done with the queries
        if (!AHEAD && thread == 0) barrier_arrive(q_empty);
        ++turn;
        continue;
      }
#endif
#if SHARERS > 1
      const int rank = cluster_rank();
      cluster_wait();
      {
        const u32 to = peer_address(given_at, rank ^ 1) + (consumer * 128 + thread) * 16;
        const u32 known = peer_address(given_full, rank ^ 1);
#pragma unroll
        for (int i = 0; i < PIECES - 1; ++i) {
          float v[4];
#pragma unroll
          for (int j = 0; j < 4; ++j) v[j] = rank == 0 ? o[D / 4 + 4 * i + j] : o[4 * i + j];
          send(to + i * WGS * 128 * 16, v[0], v[1], v[2], v[3], known);
        }
        send(to + (PIECES - 1) * WGS * 128 * 16, peak[0] * scale, peak[1] * scale, total[0], total[1], known);
      }
      float rows[D / 4], by[2], theirs[2];
      barrier_wait_cluster(given_full, 0);
      {
        const u32 from = given_at + (consumer * 128 + thread) * 16;
        const float4 about = sent(from + (PIECES - 1) * WGS * 128 * 16);
        const float peaks[2] = {about.x, about.y}, totals[2] = {about.z, about.w};
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const float highest = fmaxf(peak[half] * scale, peaks[half]);
          by[half] = exp2_fast(peak[half] * scale - highest);
          theirs[half] = exp2_fast(peaks[half] - highest);
          const float whole = 1.f / (total[half] * by[half] + totals[half] * theirs[half]);
          by[half] *= whole, theirs[half] *= whole;
        }
#pragma unroll
        for (int i = 0; i < PIECES - 1; ++i) {
          const float4 got = sent(from + i * WGS * 128 * 16);
          const float v[4] = {got.x, got.y, got.z, got.w};
#pragma unroll
          for (int j = 0; j < 4; ++j)
            rows[4 * i + j] = (rank == 0 ? o[4 * i + j] : o[D / 4 + 4 * i + j]) * by[j / 2] + v[j] * theirs[j / 2];
        }
      }
      // The columns of panel `rank`, through the place of this warp group's own queries, which nobody reads any more.
      named_wait(2 + WGS + consumer, 128);
#pragma unroll
      for (int j = 0; j < 8; j += 2) {
        const u32 matrix = lane / 8, r = warp * 16 + lane % 8 + matrix % 2 * 8, chunk = j + matrix / 2;
        const u32 to = my_q + rank * BM * 128 + r * 128 + ((chunk ^ (r & 7)) << 4);
        asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to),
                     "r"(pack(rows[4 * j], rows[4 * j + 1])), "r"(pack(rows[4 * j + 2], rows[4 * j + 3])),
                     "r"(pack(rows[4 * j + 4], rows[4 * j + 5])), "r"(pack(rows[4 * j + 6], rows[4 * j + 7]))
                     : "memory");
      }
      asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
      named_wait(2 + WGS + consumer, 128);
      if (thread == 0) {
        store_tile(&output, O_X + head * O_XH + rank * 64, row + consumer * 64, batch * O_ZB + head * O_ZH,
                   my_q + rank * BM * 128);
        asm volatile("cp.async.bulk.commit_group;" ::: "memory");
      }
#else
      const float by[2] = {1.f / total[0], 1.f / total[1]};
      // The rows go out through the place of this warp group's own queries, which nobody reads any more.
      named_wait(2 + WGS + consumer, 128);
#pragma unroll
      for (int j = 0; j < D / 8; j += 2) {
        const u32 matrix = lane / 8, r = warp * 16 + lane % 8 + matrix % 2 * 8, chunk = j % 8 + matrix / 2;
        const u32 to = my_q + j / 8 * BM * 128 + r * 128 + ((chunk ^ (r & 7)) << 4);
        asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to),
                     "r"(pack(o[4 * j] * by[0], o[4 * j + 1] * by[0])),
                     "r"(pack(o[4 * j + 2] * by[1], o[4 * j + 3] * by[1])),
                     "r"(pack(o[4 * j + 4] * by[0], o[4 * j + 5] * by[0])),
                     "r"(pack(o[4 * j + 6] * by[1], o[4 * j + 7] * by[1]))
                     : "memory");
      }
      asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
      named_wait(2 + WGS + consumer, 128);
      if (thread == 0) {
        for (int panel = 0; panel < PANELS; ++panel)
          store_tile(&output, O_X + head * O_XH + panel * 64, row + consumer * 64, batch * O_ZB + head * O_ZH,
                     my_q + panel * BM * 128);
        asm volatile("cp.async.bulk.commit_group;" ::: "memory");
#if !AHEAD
        asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
        barrier_arrive(q_empty);
#endif
      }
#endif
      ++turn;
    }
#if TURNS
    if (consumer == 0) named_wait(2 + WGS - 1, 256);  // takes the turn nobody else will
#endif
    if (thread == 0) asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
  }
}

#if PARTS
// Joins what the `grid` blocks of attention_sm90 left of the tiles they share. Grid: (tiles, BM / 32), 256 threads, which
// do 32 rows of a tile.
extern "C" __global__ void __launch_bounds__(256)
    attention_sm90_join(const float* partial, const float* peaks, unsigned short* output, int tiles, int grid) {
  asm volatile("griddepcontrol.wait;" ::: "memory");
  const int tile = blockIdx.x;
  const long long begin = static_cast<long long>(tile) * BLOCKS, end = begin + BLOCKS;
  int block = static_cast<int>(begin * grid / (static_cast<long long>(tiles) * BLOCKS));
  while (share(block + 1, grid, tiles) <= begin) ++block;
  if (share(block + 1, grid, tiles) >= end) return;  // one block did all of it
  const int m = tile % TILES_M * BM, head = tile / TILES_M % HEADS, batch = tile / TILES_M / HEADS;
  const long long plane = static_cast<long long>(batch) * O_ZB + head * O_ZH;
  for (int i = threadIdx.x; i < 32 * D / 4; i += 256) {
    const int row = blockIdx.y * 32 + i / (D / 4), column = i % (D / 4) * 4;
    if (m + row >= QUERIES) continue;
    float peak = -INFINITY, total = 0.f;
    float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
    for (int b = block; share(b, grid, tiles) < end; ++b) {
      const int slot = 2 * b + (share(b, grid, tiles) <= begin);
      const float2 other = *reinterpret_cast<const float2*>(peaks + (static_cast<long long>(slot) * BM + row) * 2);
      const float4 part =
          *reinterpret_cast<const float4*>(partial + (static_cast<long long>(slot) * BM + row) * D + column);
      const float highest = fmaxf(peak, other.x);
      const float old = exp2_fast(peak - highest), now = exp2_fast(other.x - highest);
      sum.x = sum.x * old + part.x * now;
      sum.y = sum.y * old + part.y * now;
      sum.z = sum.z * old + part.z * now;
      sum.w = sum.w * old + part.w * now;
      total = total * old + other.y * now;
      peak = highest;
    }
    const float by = 1.f / total;
    uint2 both = make_uint2(pack(sum.x * by, sum.y * by), pack(sum.z * by, sum.w * by));
    *reinterpret_cast<uint2*>(output + (plane * QUERIES + m + row) * O_COLUMNS + O_X + head * O_XH + column) = both;
  }
}
#endif
