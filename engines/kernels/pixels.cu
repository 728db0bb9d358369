// Grey levels of an image to patches of a network (IN is 1), or patches to grey levels.
//
// A thread does VECTOR neighbours of one row of one patch, which are neighbours in the image too: it reads and writes up to
// 16 bytes at once, along the rows of the image, and in the patch where that lies alike (rows, columns, channels). Nothing
// is kept in shared memory: each number is read once and written once. Grid: (enough blocks of THREADS, batch).
//
// The arithmetic is that of the graph, number for number: STEPS, which the plan writes before this file, rounds each
// operation by itself, so the compiler may not join a product and a sum.
//
// Constants: HEIGHT, WIDTH, CHANNELS, PATCH_H, PATCH_W, STRIDE_P, STRIDE_Q, STRIDE_C (in a patch, in elements), VECTOR (a
// power of 2 that divides PATCH_W * CHANNELS), WIDE (1: the image is FP32, else FP16), BF16, IN, THREADS.

#define RUN (PATCH_W * CHANNELS)
#define ROW (WIDTH * CHANNELS)
#define CONTIGUOUS (STRIDE_C == 1 && STRIDE_Q == CHANNELS && STRIDE_P == RUN)
#if IN
#define KERNEL pixels_in
#else
#define KERNEL pixels_out
#endif

__device__ __forceinline__ float to_fp16(float x) {
  asm("{\n.reg .b16 a;\ncvt.rn.f16.f32 a, %0;\ncvt.f32.f16 %0, a;\n}" : "+f"(x));
  return x;
}
__device__ __forceinline__ float to_bf16(float x) {
  u32 both;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(0.f), "f"(x));
  return __uint_as_float(both << 16);
}
// The value of a channel: one for all, or one for each.
__device__ __forceinline__ float of_channel(int, float all) { return all; }
template <typename... Others>
__device__ __forceinline__ float of_channel(int channel, float first, Others... others) {
  return channel == 0 ? first : of_channel(channel - 1, others...);
}
__device__ __forceinline__ float computed(float x, int channel) {
  STEPS
  return x;
}

template <int BYTES>
__device__ __forceinline__ void read(const void* from, u32 (&to)[(BYTES + 3) / 4]) {
  if constexpr (BYTES % 16 == 0) {
#pragma unroll
    for (int i = 0; i < BYTES / 16; ++i) {
      const uint4 got = static_cast<const uint4*>(from)[i];
      to[4 * i] = got.x, to[4 * i + 1] = got.y, to[4 * i + 2] = got.z, to[4 * i + 3] = got.w;
    }
  } else if constexpr (BYTES == 8) {
    const uint2 got = *static_cast<const uint2*>(from);
    to[0] = got.x, to[1] = got.y;
  } else if constexpr (BYTES == 4) {
    to[0] = *static_cast<const u32*>(from);
  } else {
    to[0] = *static_cast<const unsigned short*>(from);
  }
}
// __stcg, because the compiler makes four stores of one plain one of 16 bytes.
template <int BYTES>
__device__ __forceinline__ void write(void* to, const u32 (&from)[(BYTES + 3) / 4]) {
  if constexpr (BYTES % 16 == 0) {
#pragma unroll
    for (int i = 0; i < BYTES / 16; ++i)
      __stcg(static_cast<uint4*>(to) + i, make_uint4(from[4 * i], from[4 * i + 1], from[4 * i + 2], from[4 * i + 3]));
  } else if constexpr (BYTES == 8) {
    __stcg(static_cast<uint2*>(to), make_uint2(from[0], from[1]));
  } else if constexpr (BYTES == 4) {
    __stcg(static_cast<u32*>(to), from[0]);
  } else {
    __stcg(static_cast<unsigned short*>(to), static_cast<unsigned short>(from[0]));
  }
}

struct Numbers {
  float of[VECTOR];
};

__device__ __forceinline__ Numbers read_halves(const unsigned short* from) {
  Numbers to;
  u32 words[(VECTOR + 1) / 2];
  read<VECTOR * 2>(from, words);
#pragma unroll
  for (int i = 0; i < (VECTOR + 1) / 2; ++i) {
    float low, high;
    unpack(words[i], low, high);
    to.of[2 * i] = low;
    if (2 * i + 1 < VECTOR) to.of[2 * i + 1] = high;
  }
  return to;
}
__device__ __forceinline__ void write_halves(unsigned short* to, const Numbers& from) {
  u32 words[(VECTOR + 1) / 2];
#pragma unroll
  for (int i = 0; i < (VECTOR + 1) / 2; ++i)
    words[i] = pack(from.of[2 * i], 2 * i + 1 < VECTOR ? from.of[(2 * i + 1) % VECTOR] : 0.f);
  write<VECTOR * 2>(to, words);
}
__device__ __forceinline__ Numbers read_image(const void* image, long long at) {
#if WIDE
  Numbers to;
  u32 words[VECTOR];
  read<VECTOR * 4>(static_cast<const float*>(image) + at, words);
#pragma unroll
  for (int i = 0; i < VECTOR; ++i) to.of[i] = __uint_as_float(words[i]);
  return to;
#else
  return read_halves(static_cast<const unsigned short*>(image) + at);
#endif
}
__device__ __forceinline__ void write_image(void* image, long long at, const Numbers& from) {
#if WIDE
  u32 words[VECTOR];
#pragma unroll
  for (int i = 0; i < VECTOR; ++i) words[i] = __float_as_uint(from.of[i]);
  write<VECTOR * 4>(static_cast<float*>(image) + at, words);
#else
  write_halves(static_cast<unsigned short*>(image) + at, from);
#endif
}
// `within`: where the first number lies in its row of the patch, columns with their channels.
__device__ __forceinline__ Numbers read_patch(const unsigned short* row, int within) {
  if constexpr (CONTIGUOUS) return read_halves(row + within);
  Numbers to;
#pragma unroll
  for (int i = 0; i < VECTOR; ++i) {
    const int q = (within + i) / CHANNELS, c = (within + i) % CHANNELS;
    float unused;
    unpack(row[q * STRIDE_Q + c * STRIDE_C], to.of[i], unused);
  }
  return to;
}
__device__ __forceinline__ void write_patch(unsigned short* row, int within, const Numbers& from) {
  if constexpr (CONTIGUOUS) {
    write_halves(row + within, from);
  } else {
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) {
      const int q = (within + i) / CHANNELS, c = (within + i) % CHANNELS;
      row[q * STRIDE_Q + c * STRIDE_C] = static_cast<unsigned short>(pack(from.of[i], 0.f));
    }
  }
}

extern "C" __global__ void __launch_bounds__(THREADS) KERNEL(const void* from, void* to) {
#if __CUDA_ARCH__ >= 900
  // What follows may start; it waits for this kernel's end itself, as this one does for the one before.
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
  const int first = (blockIdx.x * THREADS + threadIdx.x) * VECTOR;
  if (first >= HEIGHT * ROW) return;
  const int y = first / ROW, x = first % ROW;
  const int token = y / PATCH_H * (WIDTH / PATCH_W) + x / RUN;
  const int within = x % RUN;
  const long long start = static_cast<long long>(blockIdx.y) * (HEIGHT * ROW);
  const long long patch = start + token * (PATCH_H * RUN) + y % PATCH_H * STRIDE_P;
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
#if IN
  Numbers numbers = read_image(from, start + first);
#else
  Numbers numbers = read_patch(static_cast<const unsigned short*>(from) + patch, within);
#endif
#pragma unroll
  for (int i = 0; i < VECTOR; ++i) numbers.of[i] = computed(numbers.of[i], (within + i) % CHANNELS);
#if IN
  write_patch(static_cast<unsigned short*>(to) + patch, within, numbers);
#else
  write_image(to, start + first, numbers);
#endif
}
