// Device functions that generated kernels call by name; see NVIDIA's PTX manual 9.0 for each.
#define HYBRIDC_INLINE static __device__ __forceinline__

HYBRIDC_INLINE unsigned hybridc_shared(const void* pointer) {
  return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

// Copies 16 bytes from global to shared memory, asynchronously where the GPU can; zeros for bytes
// beyond the first `valid` (16 or 0), in which case nothing is read.
HYBRIDC_INLINE void hybridc_copy16(void* to, const void* from, int valid) {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(hybridc_shared(to)), "l"(from),
               "r"(valid)
               : "memory");
#else
  *static_cast<uint4*>(to) = valid ? *static_cast<const uint4*>(from) : make_uint4(0, 0, 0, 0);
#endif
}

// The same for 8 bytes, and for 4.
HYBRIDC_INLINE void hybridc_copy8(void* to, const void* from, int valid) {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(hybridc_shared(to)), "l"(from),
               "r"(valid)
               : "memory");
#else
  *static_cast<uint2*>(to) = valid ? *static_cast<const uint2*>(from) : make_uint2(0, 0);
#endif
}

HYBRIDC_INLINE void hybridc_copy4(void* to, const void* from, int valid) {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(hybridc_shared(to)), "l"(from),
               "r"(valid)
               : "memory");
#else
  *static_cast<unsigned*>(to) = valid ? *static_cast<const unsigned*>(from) : 0u;
#endif
}

// Ends a group of copies; `hybridc_wait<n>` waits until at most n of the latest are under way.
HYBRIDC_INLINE void hybridc_commit() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

template <int n>
HYBRIDC_INLINE void hybridc_wait() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(n) : "memory");
#endif
}

// Lets what this thread wrote to shared memory be seen by what reads it asynchronously (`wgmma`).
HYBRIDC_INLINE void hybridc_fence_async() {
#if __CUDA_ARCH__ >= 900
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

#if __CUDA_ARCH__ >= 900
// All threads of the cluster, of so many blocks, meet; what they wrote before is seen behind.  Not
// `.aligned`: behind a condition, threads of a warp may come apart.
template <int blocks>
HYBRIDC_INLINE void hybridc_cluster() {
  asm volatile("barrier.cluster.arrive;\nbarrier.cluster.wait;" ::: "memory");
}

// They meet, and what they read before is free behind.
template <int blocks>
HYBRIDC_INLINE void hybridc_cluster_done() {
  asm volatile("barrier.cluster.arrive.relaxed;\nbarrier.cluster.wait;" ::: "memory");
}

#endif

// A place in shared memory as it is in that of another block of the cluster, where there are such.
HYBRIDC_INLINE const void* hybridc_beside(const void* place, int block) {
#if __CUDA_ARCH__ >= 900
  asm("mapa.u64 %0, %1, %2;" : "=l"(place) : "l"(place), "r"(block));
#endif
  return place;
}

// Asks for what lies there, so that it is in the L2 cache when it is read.
HYBRIDC_INLINE void hybridc_prefetch(const void* from) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(from));
}

// Does nothing: see `tir.allocated`.
HYBRIDC_INLINE void hybridc_whole(const void*) {}

template <class T>
HYBRIDC_INLINE void hybridc_put(void* to, T value) {
  *static_cast<T*>(to) = value;
}

template <class T>
HYBRIDC_INLINE T hybridc_get(const void* from) {
  return *static_cast<const T*>(from);
}

// A power of 2, to 2 units in the last place; below 2^-126 it is 0.
HYBRIDC_INLINE float hybridc_exp2(float power) {
  float made;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(made) : "f"(power));
  return made;
}

#if __CUDA_ARCH__ >= 800
// See `functions.cuh`, which has them of all types, in more instructions.
HYBRIDC_INLINE float hybridc_max(float a, float b) {
  float made;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(made) : "f"(a), "f"(b));
  return made;
}

HYBRIDC_INLINE float hybridc_min(float a, float b) {
  float made;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(made) : "f"(a), "f"(b));
  return made;
}
#endif

// These are computed here, not behind what is waited for next.
template <int count>
HYBRIDC_INLINE void hybridc_now(float* values) {
#pragma unroll
  for (int i = 0; i < count; ++i) asm volatile("" : "+f"(values[i])::"memory");
}

// Four 8x8 matrices of 16-bit elements; each lane names one row, of 16 bytes.
HYBRIDC_INLINE void hybridc_ldmatrix(unsigned* to, const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(hybridc_shared(row))
               : "memory");
}

HYBRIDC_INLINE void hybridc_ldmatrix_trans(unsigned* to, const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(hybridc_shared(row))
               : "memory");
}

// c[16x8] += a[16x16] b[16x8] of float16, sums in float32.
HYBRIDC_INLINE void hybridc_mma_float16(float* c, const unsigned* a, const unsigned* b) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  for (int half = 0; half < 2; ++half)
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[2 * half]), "r"(a[2 * half + 1]), "r"(b[half]));
#endif
}

#if __CUDA_ARCH__ >= 800
// c[16x8] += a[16x32] b[32x8] of bytes, sums in int32.
#define HYBRIDC_MMA_BYTES(NAME, TYPES)                                                             \
  HYBRIDC_INLINE void hybridc_mma_##NAME(int* c, const unsigned* a, const unsigned* b) {           \
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32." TYPES                                    \
                 ".s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"            \
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])                                  \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));              \
  }
HYBRIDC_MMA_BYTES(uint8_uint8, "u8.u8")
HYBRIDC_MMA_BYTES(uint8_int8, "u8.s8")
HYBRIDC_MMA_BYTES(int8_uint8, "s8.u8")
HYBRIDC_MMA_BYTES(int8_int8, "s8.s8")
#endif

// c += the dot product of 16 bytes, four at a time.
#define HYBRIDC_DOT_BYTES(NAME, TYPES)                                                             \
  HYBRIDC_INLINE void hybridc_dot_##NAME(int* c, const int* a, const int* b) {                     \
    for (int i = 0; i < 4; ++i)                                                                    \
      asm("dp4a." TYPES " %0, %1, %2, %0;" : "+r"(*c) : "r"(a[i]), "r"(b[i]));                     \
  }
HYBRIDC_DOT_BYTES(uint8_uint8, "u32.u32")
HYBRIDC_DOT_BYTES(uint8_int8, "u32.s32")
HYBRIDC_DOT_BYTES(int8_uint8, "s32.u32")
HYBRIDC_DOT_BYTES(int8_int8, "s32.s32")

// Eight floats as the four registers of 16-bit operands that `mma` takes on the left.
HYBRIDC_INLINE void hybridc_narrow_float16(unsigned* to, const float* from) {
#pragma unroll
  for (int i = 0; i < 4; ++i)
#if __CUDA_ARCH__ >= 800
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(to[i]) : "f"(from[2 * i + 1]), "f"(from[2 * i]));
#else
    asm("{.reg .b16 low, high; cvt.rn.f16.f32 low, %1; cvt.rn.f16.f32 high, %2; "
        "mov.b32 %0, {low, high};}"
        : "=r"(to[i])
        : "f"(from[2 * i]), "f"(from[2 * i + 1]));
#endif
}

// (bits & mask) ^ turned, in one instruction even where both are constants.
HYBRIDC_INLINE unsigned hybridc_masked(unsigned bits, unsigned mask, unsigned turned) {
  unsigned made;
  asm("lop3.b32 %0, %1, %2, %3, 0x6A;" : "=r"(made) : "r"(bits), "r"(mask), "r"(turned));
  return made;
}

// a b + c of two numbers of 16 bits each, rounded once.
HYBRIDC_INLINE unsigned hybridc_fma_float16(unsigned a, unsigned b, unsigned c) {
  unsigned made;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(made) : "r"(a), "r"(b), "r"(c));
  return made;
}

#if __CUDA_ARCH__ >= 800
HYBRIDC_INLINE void hybridc_mma_bfloat16(float* c, const unsigned* a, const unsigned* b) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

HYBRIDC_INLINE void hybridc_narrow_bfloat16(unsigned* to, const float* from) {
#pragma unroll
  for (int i = 0; i < 4; ++i)
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(to[i]) : "f"(from[2 * i + 1]), "f"(from[2 * i]));
}

HYBRIDC_INLINE unsigned hybridc_fma_bfloat16(unsigned a, unsigned b, unsigned c) {
  unsigned made;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(made) : "r"(a), "r"(b), "r"(c));
  return made;
}

// float32 bits, rounded to the nearest TensorFloat-32, ties away from zero.
HYBRIDC_INLINE unsigned hybridc_tf32(unsigned bits) {
  unsigned rounded;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(__uint_as_float(bits)));
  return rounded;
}

// The same for four registers.
HYBRIDC_INLINE void hybridc_round_tf32(unsigned* bits) {
#pragma unroll
  for (int i = 0; i < 4; ++i) bits[i] = hybridc_tf32(bits[i]);
}

// Four floats of `mma`'s result as the four registers that it takes on the left, where the columns are
// in the order 0, 4, 1, 5, 2, 6, 3, 7.
HYBRIDC_INLINE void hybridc_narrow_tf32(unsigned* to, const float* from) {
#pragma unroll
  for (int i = 0; i < 4; ++i) to[i] = hybridc_tf32(__float_as_uint(from[i / 2 + i % 2 * 2]));
}

// c[16x8] += a[16x8] b[8x8] of TensorFloat-32.
HYBRIDC_INLINE void hybridc_mma_rounded_tf32(float* c, const unsigned* a, const unsigned* b) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// The same of float32, which is rounded.
HYBRIDC_INLINE void hybridc_mma_tf32(float* c, const unsigned* a, const unsigned* b) {
  unsigned left[4], right[2];
#pragma unroll
  for (int i = 0; i < 4; ++i) left[i] = hybridc_tf32(a[i]);
#pragma unroll
  for (int i = 0; i < 2; ++i) right[i] = hybridc_tf32(b[i]);
  hybridc_mma_rounded_tf32(c, left, right);
}
#endif

// c += the dot product of four neighbouring floats.
HYBRIDC_INLINE void hybridc_dot4(float* c, const float* a, const float* b) {
#pragma unroll
  for (int i = 0; i < 4; ++i) *c = fmaf(a[i], b[i], *c);
}

// Adds four neighbours of 4 bytes, the first at a multiple of 16.
template <class T>
HYBRIDC_INLINE void hybridc_add4(T* to, const void* from) {
  float4 raw = *static_cast<const float4*>(from);
  const T* each = reinterpret_cast<const T*>(&raw);
#pragma unroll
  for (int i = 0; i < 4; ++i) to[i] += each[i];
}

// Four neighbours of 4 bytes, the first at a multiple of 16.
template <class T>
HYBRIDC_INLINE void hybridc_load4(T* to, const void* from) {
  *reinterpret_cast<float4*>(to) = *static_cast<const float4*>(from);
}
