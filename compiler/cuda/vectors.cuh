// Vectors of neighbouring elements, and sums over the lanes of a warp.

// `count` neighbours of type T as floats; zeros, and nothing is read, where they are not `valid`.
template <class T, int count>
HYBRIDC_INLINE void hybridc_widen(float* to, const void* from, int valid) {
  if (count * sizeof(T) == 16) {
    uint4 raw = valid ? *static_cast<const uint4*>(from) : make_uint4(0, 0, 0, 0);
    const T* elements = reinterpret_cast<const T*>(&raw);
#pragma unroll
    for (int i = 0; i < count; ++i) to[i] = static_cast<float>(elements[i]);
  } else {
#pragma unroll
    for (int i = 0; i < count; ++i)
      to[i] = valid ? static_cast<float>(static_cast<const T*>(from)[i]) : 0.0f;
  }
}

// Sums over those lanes of a warp that are a multiple of `apart` lanes from each other.
template <int count, int apart>
HYBRIDC_INLINE void hybridc_lanes_total(float* sums) {
#pragma unroll
  for (int i = 0; i < count; ++i)
#pragma unroll
    for (int by = apart; by < 32; by *= 2) sums[i] += __shfl_xor_sync(0xffffffffu, sums[i], by);
}
