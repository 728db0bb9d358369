// Two numbers of half precision in one word, FP16 or (BF16 is 1) BF16. Stands before every CUDA C++ kernel of this folder.

typedef unsigned int u32;
typedef unsigned long long u64;

__device__ __forceinline__ u32 pack(float low, float high) {
  u32 both;
#if BF16
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
#else
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
#endif
  return both;
}

__device__ __forceinline__ void unpack(u32 both, float& low, float& high) {
#if BF16
  low = __uint_as_float(both << 16);
  high = __uint_as_float(both & 0xffff0000u);
#else
  asm("{\n.reg .b16 a, b;\nmov.b32 {a, b}, %2;\ncvt.f32.f16 %0, a;\ncvt.f32.f16 %1, b;\n}"
      : "=f"(low), "=f"(high)
      : "r"(both));
#endif
}

