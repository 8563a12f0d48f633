// Weights of 8 and 4 bits.  A piece of them is 16 bytes of integers, and four scales in bfloat16: of 8
// bits a word has the four columns of a step of the depth, of 4 bits the eight steps of a column, the
// first in its lowest bits.

// A piece as it lies; zeros, and nothing is read, where it is not `valid`.
HYBRIDC_INLINE void hybridc_load_weights(int* to, const void* integers, const void* scales, int valid) {
  hybridc_widen<int, 4>(to, integers, valid);
  uint2 pairs = valid ? *static_cast<const uint2*>(scales) : make_uint2(0, 0);
  to[4] = static_cast<int>(pairs.x);
  to[5] = static_cast<int>(pairs.y);
}

// Its scales as floats.
HYBRIDC_INLINE void hybridc_scales(float* to, const int* from) {
#pragma unroll
  for (int i = 0; i < 4; ++i)
    to[i] = __int_as_float(i % 2 ? from[4 + i / 2] & 0xffff0000 : from[4 + i / 2] << 16);
}

// Its integers as floats, each step of the depth four columns.  The bits of an integer, its sign's
// turned, are the last ones of 2^23, or of 4 bits as many places further up as they lie; what they were
// added to is taken off again.  That is exact, and needs none of the conversions, of which a
// multiprocessor does few at a time.
template <int bits>
HYBRIDC_INLINE void hybridc_integers(float* to, const int* from) {
#pragma unroll
  for (int i = 0; i < 128 / bits; ++i) {
    int column = i % 4, step = i / 4;
    if (bits == 8) {
      unsigned turned = from[step] ^ 0x80808080;
      to[i] = __uint_as_float(__byte_perm(turned, 0x4B000000, 0x7540 + column)) - 8388736.0f;
    } else {
      int place = step % 4 * 4;
      unsigned word = static_cast<unsigned>(from[column]) >> step / 4 * 16;
      unsigned raw = hybridc_masked(word, 15u << place, 0x4B000000u | 8u << place);
      float last = 1.0f / (1 << place);
      to[i] = fmaf(__uint_as_float(raw), last, -(8388608.0f * last + 8.0f));
    }
  }
}

// The weights of a piece as floats.
template <int bits>
HYBRIDC_INLINE void hybridc_unpack_weights(float* to, const int* from) {
  float scales[4];
  hybridc_scales(scales, from);
  hybridc_integers<bits>(to, from);
#pragma unroll
  for (int i = 0; i < 128 / bits; ++i) to[i] *= scales[i % 4];
}

// Adds to the sums of four columns what a piece's integers are with so many `x`, times the scales.
template <int bits>
HYBRIDC_INLINE void hybridc_dot_weights(float* sums, const float* x, const float* integers,
                                        const float* scales) {
#pragma unroll
  for (int column = 0; column < 4; ++column) {
    float sum = x[0] * integers[column];
#pragma unroll
    for (int i = 1; i < 32 / bits; ++i) sum = fmaf(x[i], integers[4 * i + column], sum);
    sums[column] = fmaf(sum, scales[column], sums[column]);
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

// Types of 16 bits, two numbers in a register: 1, and the number whose last bit counts 1 with that bit
// of an integer set which tells its sign.
struct hybridc_float16 {
  static constexpr unsigned one = 0x3C003C00, of_4_bits = 0x64086408, of_8_bits = 0x64806480;
  HYBRIDC_INLINE unsigned fma(unsigned a, unsigned b, unsigned c) {
    return hybridc_fma_float16(a, b, c);
  }
  HYBRIDC_INLINE void narrow(unsigned* to, const float* from) { hybridc_narrow_float16(to, from); }
  HYBRIDC_INLINE void mma(float* c, const unsigned* a, const unsigned* b) {
    hybridc_mma_float16(c, a, b);
  }
};
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
struct hybridc_bfloat16 {
  static constexpr unsigned one = 0x3F803F80, of_4_bits = 0x43084308, of_8_bits = 0;  // of 8: none
  HYBRIDC_INLINE unsigned fma(unsigned a, unsigned b, unsigned c) {
    return hybridc_fma_bfloat16(a, b, c);
  }
  HYBRIDC_INLINE void narrow(unsigned* to, const float* from) { hybridc_narrow_bfloat16(to, from); }
  HYBRIDC_INLINE void mma(float* c, const unsigned* a, const unsigned* b) {
    hybridc_mma_bfloat16(c, a, b);
  }
};
#endif

// The integers of a piece in 16 bits: of each column all steps of the depth, by pairs.
template <class T, int bits>
HYBRIDC_INLINE void hybridc_integer_pairs(unsigned* to, const int* from) {
  constexpr int pairs = 16 / bits;
  if (bits == 8 && !T::of_8_bits) {
    float wide[16], lines[16];
    hybridc_integers<8>(wide, from);
#pragma unroll
    for (int i = 0; i < 16; ++i) lines[i] = wide[i % 4 * 4 + i / 4];
    T::narrow(to, lines);
    T::narrow(to + 4, lines + 8);
    return;
  }
  constexpr unsigned mask = bits == 4 ? 0x000F000F : 0x00FF00FF;
  constexpr unsigned most = bits == 4 ? T::of_4_bits : T::of_8_bits;
#pragma unroll
  for (int i = 0; i < 4 * pairs; ++i) {
    int column = i / pairs, pair = i % pairs;
    unsigned even = from[bits == 4 ? column : 2 * pair];
    unsigned odd = bits == 4 ? even >> 4 : from[2 * pair + 1];
    // A byte of each, in the lower half and in the upper one.
    unsigned both = __byte_perm(even, odd, 0x4400 + 0x1111 * (bits == 4 ? pair : column));
    to[i] = T::fma(hybridc_masked(both, mask, most), T::one, most ^ 0x80008000);
  }
}

// The weights of a piece so, rounded once.
template <class T, int bits>
HYBRIDC_INLINE void hybridc_unpack_pairs(unsigned* to, const int* from) {
  float scales[4], twice[8];
  unsigned scale[4];
  hybridc_integer_pairs<T, bits>(to, from);
  hybridc_scales(scales, from);
#pragma unroll
  for (int i = 0; i < 8; ++i) twice[i] = scales[i / 2];
  T::narrow(scale, twice);
#pragma unroll
  for (int i = 0; i < 64 / bits; ++i) to[i] = T::fma(to[i], scale[i / (16 / bits)], 0x80008000);
}

// The same to a tile in shared memory, from a step of the depth on.
template <class T, int bits>
HYBRIDC_INLINE void hybridc_put_pairs(void* tile, int row, int step, const int* from) {
  unsigned weights[64 / bits];
  hybridc_unpack_pairs<T, bits>(weights, from);
#pragma unroll
  for (int column = 0; column < 4; ++column) {
    const unsigned* own = weights + column * (16 / bits);
    int place = (row + column) * 128 + (step / 8 ^ (row + column & 7)) * 16 + step % 8 * 2;
    void* to = static_cast<char*>(tile) + place;
    if (bits == 4)
      *static_cast<uint4*>(to) = make_uint4(own[0], own[1], own[2], own[3]);
    else
      *static_cast<uint2*>(to) = make_uint2(own[0], own[1]);
  }
}

// Adds to the sums of a warp what its lanes' pieces are with eight rows of `x`.  The four columns of a
// lane are rows of two `mma`: sums 0 and 1 are of the first of them, with rows 2 (lane % 4) of x and
// one more, and so on; the depth of a lane's piece is that of the four lanes beside it as well, and so
// are the scales.
template <class T, int bits>
HYBRIDC_INLINE void hybridc_multiply_weights(float* sums, const int* from, const unsigned* x) {
  constexpr int pairs = 16 / bits;
  unsigned integers[4 * pairs];
  float scales[4];
  hybridc_integer_pairs<T, bits>(integers, from);
  hybridc_scales(scales, from);
#pragma unroll
  for (int two = 0; two < 2; ++two) {
    float part[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
    for (int i = 0; i < pairs; i += 2) {
      const unsigned *first = integers + 2 * two * pairs + i, *second = first + pairs;
      unsigned both[4] = {first[0], second[0], first[1], second[1]};
      T::mma(part, both, x + i);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float* sum = sums + 4 * two + i;
      *sum = fmaf(part[i], scales[2 * two + i / 2], *sum);
    }
  }
}

// So many pairs of neighbours, 8 or 16 bytes; zeros, and nothing is read, where they are not `valid`.
template <int count>
HYBRIDC_INLINE void hybridc_load_pairs(unsigned* to, const void* from, int valid) {
  if (count == 4) {
    uint4 raw = valid ? *static_cast<const uint4*>(from) : make_uint4(0, 0, 0, 0);
    to[0] = raw.x, to[1] = raw.y, to[2] = raw.z, to[3] = raw.w;
  } else {
    uint2 raw = valid ? *static_cast<const uint2*>(from) : make_uint2(0, 0);
    to[0] = raw.x, to[1] = raw.y;
  }
}

// Two elements of 16 bits as a pair.
template <class T>
HYBRIDC_INLINE void hybridc_pair(unsigned* to, T low, T high) {
  T both[2] = {low, high};
  *to = *reinterpret_cast<const unsigned*>(both);
}
