// Vectors of neighbouring elements, and sums over the lanes of a warp.

// `count` neighbours of type T as floats or integers of 32 bits; zeros, and nothing is read, where they
// are not `valid`.
template <class T, int count, class Wide>
HYBRIDC_INLINE void hybridc_widen(Wide* to, const void* from, int valid) {
  if (count * sizeof(T) == 16) {
    uint4 raw = valid ? *static_cast<const uint4*>(from) : make_uint4(0, 0, 0, 0);
    const T* elements = reinterpret_cast<const T*>(&raw);
#pragma unroll
    for (int i = 0; i < count; ++i) to[i] = static_cast<Wide>(elements[i]);
  } else {
#pragma unroll
    for (int i = 0; i < count; ++i)
      to[i] = valid ? static_cast<Wide>(static_cast<const T*>(from)[i]) : Wide(0);
  }
}

// `count` neighbours of type T, in one access of at most 16 bytes.
template <class T, int count>
HYBRIDC_INLINE void hybridc_vector(void* to, const void* from) {
  constexpr int bytes = count * sizeof(T);
  if (bytes == 16)
    *static_cast<uint4*>(to) = *static_cast<const uint4*>(from);
  else if (bytes == 8)
    *static_cast<uint2*>(to) = *static_cast<const uint2*>(from);
  else if (bytes == 4)
    *static_cast<unsigned*>(to) = *static_cast<const unsigned*>(from);
  else
    for (int i = 0; i < count; ++i) static_cast<T*>(to)[i] = static_cast<const T*>(from)[i];
}

// What the lane has whose number differs by the bit `by`.
template <class T>
HYBRIDC_INLINE T hybridc_across(T value, int by) {
  return __shfl_xor_sync(0xffffffffu, value, by);
}

// Sums over those lanes of a warp that are a multiple of `apart` lanes from each other.
template <int count, int apart, class Wide>
HYBRIDC_INLINE void hybridc_lanes_total(Wide* sums) {
#pragma unroll
  for (int i = 0; i < count; ++i)
#pragma unroll
    for (int by = apart; by < 32; by *= 2) sums[i] += __shfl_xor_sync(0xffffffffu, sums[i], by);
}

// 16 bytes as they lie.
HYBRIDC_INLINE void hybridc_load16(int* to, const void* from, int valid) {
  hybridc_widen<int, 4>(to, from, valid);
}
