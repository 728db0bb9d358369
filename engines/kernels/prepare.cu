// QK-RMSNorm and RoPE once for every token, where attention would do the keys' again for every block of queries.
//
// Writes [batch, TOKENS, 2, HEADS, D]: queries, then keys. A thread does VECTOR channels of one head of one token and
// their partners half a head away; all it loads is asked for at once, so the kernel takes one trip to memory and back.
// Grid: (enough blocks of 256 threads for TOKENS * 2 * HEADS * LANES, batch).
//
// Constants: D, HEADS, TOKENS, Q_BATCH, Q_HEAD, Q_ROW, K_BATCH, K_HEAD, K_ROW (strides in elements), BF16, NORM, ROPE,
// OVERLAP (1: the next kernel may start now, and waits for this one's end itself before it reads).

#define HALF (D / 2)
#define VECTOR (HALF % 8 == 0 ? 8 : 4)
#define NEEDED (HALF / VECTOR)
#define LANES (NEEDED <= 2 ? 2 : NEEDED <= 4 ? 4 : NEEDED <= 8 ? 8 : 16)

struct Channels {
  float of[VECTOR];
};

__device__ __forceinline__ Channels load_half(const unsigned short* from) {
  Channels to;
  u32 words[VECTOR / 2];
  if (VECTOR == 8) {
    const uint4 got = __ldg(reinterpret_cast<const uint4*>(from));
    words[0] = got.x, words[1] = got.y, words[VECTOR / 2 - 2] = got.z, words[VECTOR / 2 - 1] = got.w;
  } else {
    const uint2 got = __ldg(reinterpret_cast<const uint2*>(from));
    words[0] = got.x, words[1] = got.y;
  }
#pragma unroll
  for (int i = 0; i < VECTOR / 2; ++i) unpack(words[i], to.of[2 * i], to.of[2 * i + 1]);
  return to;
}

__device__ __forceinline__ Channels load_float(const float* from) {
  Channels to;
#pragma unroll
  for (int i = 0; i < VECTOR / 4; ++i) {
    const float4 got = __ldg(reinterpret_cast<const float4*>(from) + i);
    to.of[4 * i] = got.x, to.of[4 * i + 1] = got.y, to.of[4 * i + 2] = got.z, to.of[4 * i + 3] = got.w;
  }
  return to;
}

__device__ __forceinline__ void store_half(unsigned short* to, const Channels& from) {
  u32 words[4] = {0, 0, 0, 0};
#pragma unroll
  for (int i = 0; i < VECTOR / 2; ++i) words[i] = pack(from.of[2 * i], from.of[2 * i + 1]);
  if (VECTOR == 8)
    *reinterpret_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
  else
    *reinterpret_cast<uint2*>(to) = make_uint2(words[0], words[1]);
}

extern "C" __global__ void __launch_bounds__(256)
    prepare(const unsigned short* queries, const unsigned short* keys, unsigned short* output, const float* gain_q,
            const float* gain_k, const float* cosines, const float* sines, float eps) {
#if OVERLAP
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
  int index = blockIdx.x * 256 + threadIdx.x;
  const int lane = index % LANES;
  index /= LANES;
  const int head = index % HEADS;
  index /= HEADS;
  const int which = index % 2, token = index / 2;
  const bool inside = token < TOKENS && lane < NEEDED;
  Channels a = {}, b = {}, gain = {}, gain2 = {}, c = {}, s = {};
  const int at = lane * VECTOR;
  if (inside) {
    const long long batch = blockIdx.y;
    const unsigned short* from = which == 0 ? queries + batch * Q_BATCH + head * Q_HEAD + (long long)token * Q_ROW
                                            : keys + batch * K_BATCH + head * K_HEAD + (long long)token * K_ROW;
    a = load_half(from + at);
    b = load_half(from + HALF + at);
#if ROPE
    c = load_float(cosines + token * HALF + at);
    s = load_float(sines + token * HALF + at);
#endif
#if NORM
    gain = load_float((which == 0 ? gain_q : gain_k) + at);
    gain2 = load_float((which == 0 ? gain_q : gain_k) + HALF + at);
#endif
  }
#if NORM
  float square = 0.f;
#pragma unroll
  for (int i = 0; i < VECTOR; ++i) square = fmaf(a.of[i], a.of[i], fmaf(b.of[i], b.of[i], square));
#pragma unroll
  for (int other = 1; other < LANES; other *= 2) square += __shfl_xor_sync(0xffffffff, square, other);
  const float by = rsqrtf(square * (1.f / D) + eps);
#pragma unroll
  for (int i = 0; i < VECTOR; ++i) a.of[i] *= by * gain.of[i], b.of[i] *= by * gain2.of[i];
#endif
#if ROPE
#pragma unroll
  for (int i = 0; i < VECTOR; ++i) {
    const float turned = a.of[i] * c.of[i] - b.of[i] * s.of[i];
    b.of[i] = fmaf(b.of[i], c.of[i], a.of[i] * s.of[i]);
    a.of[i] = turned;
  }
#endif
  if (!inside) return;
  unsigned short* to = output + (((long long)blockIdx.y * TOKENS + token) * 2 + which) * (HEADS * D) + head * D + at;
  store_half(to, a);
  store_half(to + HALF, b);
}
