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

// A piece of packed weights as it lies: 16 bytes of integers, and four scales in bfloat16.
HYBRIDC_INLINE void hybridc_load_weights(int* to, const void* integers, const void* scales, int valid) {
  hybridc_widen<int, 4>(to, integers, valid);
  uint2 pairs = valid ? *static_cast<const uint2*>(scales) : make_uint2(0, 0);
  to[4] = static_cast<int>(pairs.x);
  to[5] = static_cast<int>(pairs.y);
}

// The weights of a piece, each step of the depth four columns: of 8 bits a word has the columns of a
// step, of 4 bits the eight steps of a column, the first in its lowest bits.
template <int bits>
HYBRIDC_INLINE void hybridc_unpack_weights(float* to, const int* from) {
  float scales[4];
#pragma unroll
  for (int i = 0; i < 4; ++i)
    scales[i] = __int_as_float(i % 2 ? from[4 + i / 2] & 0xffff0000 : from[4 + i / 2] << 16);
#pragma unroll
  for (int i = 0; i < 128 / bits; ++i) {
    int column = i % 4, step = i / 4;
    int word = from[bits == 8 ? step : column], place = bits == 8 ? column : step;
    to[i] = static_cast<float>(word << (32 - bits - place * bits) >> (32 - bits)) * scales[column];
  }
}

// The same to a tile in shared memory, whose rows of 128 bytes are columns of the weights; the piece's
// first row is a multiple of 4, and its first chunk of 16 bytes has four steps of the depth.
template <int bits>
HYBRIDC_INLINE void hybridc_put_weights(void* tile, int row, int chunk, const int* from) {
  float weights[128 / bits];
  hybridc_unpack_weights<bits>(weights, from);
#pragma unroll
  for (int column = 0; column < 4; ++column)
#pragma unroll
    for (int j = 0; j < 8 / bits; ++j) {
      const float* first = weights + 16 * j + column;
      int own = row + column, place = own * 128 + ((chunk + j) ^ (own & 7)) * 16;
      *reinterpret_cast<float4*>(static_cast<char*>(tile) + place) =
          make_float4(first[0], first[4], first[8], first[12]);
    }
}
