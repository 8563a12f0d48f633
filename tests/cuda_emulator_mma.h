// Products of warps and what loads their operands: descriptions of NVIDIA's PTX manual 9.0.
#pragma once

namespace emulated {
// Register i of lane t holds row t / 4, elements 2 (t % 4) and the next, of matrix i, whose rows
// are named by lanes 8 i to 8 i + 7; with `trans`, of the transposed matrix.
inline void ldmatrix(unsigned* to, const void* row, bool trans) {
  check_shared(row, 16);
  int t = lane();
  publish(row);
  for (int i = 0; i < 4; ++i) {
    const uint16_t* rows[8];
    for (int r = 0; r < 8; ++r)
      rows[r] = static_cast<const uint16_t*>(seen<const void*>(8 * i + r));
    int a = t / 4, b = 2 * (t % 4);
    uint16_t low = trans ? rows[b][a] : rows[a][b];
    uint16_t high = trans ? rows[b + 1][a] : rows[a][b + 1];
    to[i] = static_cast<unsigned>(high) << 16 | low;
  }
}

inline float wide(half* , uint16_t bits) { half x; std::memcpy(&x, &bits, 2); return x; }
inline float wide(nv_bfloat16*, uint16_t bits) { nv_bfloat16 x; x.bits = bits; return x; }
inline unsigned tf32(unsigned bits) { return (bits + 0x1000) & ~0x1FFFu; }
inline float exact(unsigned bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

struct Fragments { unsigned a[4], b[2]; };

// m16n8k16, 16-bit: a[i] holds row g + 8 (i % 2), columns 2 q and 2 q + 1, 8 further for i >= 2,
// with g = t / 4 and q = t % 4; b[i] rows 2 q, 2 q + 1, 8 further for i = 1, of column g;
// c[i] row g + 8 (i / 2), column 2 q + i % 2.
template <class T>
void mma16(float* c, const unsigned* a, const unsigned* b) {
  Fragments mine;
  std::memcpy(mine.a, a, 16);
  std::memcpy(mine.b, b, 8);
  publish(mine);
  float left[16][16], right[16][8];
  for (int from = 0; from < 32; ++from) {
    auto f = seen<Fragments>(from);
    int g = from / 4, q = from % 4;
    for (int i = 0; i < 4; ++i)
      for (int e = 0; e < 2; ++e)
        left[g + 8 * (i % 2)][2 * q + e + 8 * (i / 2)] =
            wide(static_cast<T*>(nullptr), static_cast<uint16_t>(f.a[i] >> 16 * e));
    for (int i = 0; i < 2; ++i)
      for (int e = 0; e < 2; ++e)
        right[2 * q + e + 8 * i][g] =
            wide(static_cast<T*>(nullptr), static_cast<uint16_t>(f.b[i] >> 16 * e));
  }
  int g = lane() / 4, q = lane() % 4;
  for (int i = 0; i < 4; ++i)
    for (int k = 0; k < 16; ++k) c[i] += left[g + 8 * (i / 2)][k] * right[k][2 * q + i % 2];
}
}  // namespace emulated

inline void hybridc_ldmatrix(unsigned* to, const void* row) { emulated::ldmatrix(to, row, false); }
inline void hybridc_ldmatrix_trans(unsigned* to, const void* row) {
  emulated::ldmatrix(to, row, true);
}
inline void hybridc_mma_float16(float* c, const unsigned* a, const unsigned* b) {
  emulated::mma16<half>(c, a, b);
}
inline void hybridc_mma_bfloat16(float* c, const unsigned* a, const unsigned* b) {
  emulated::mma16<nv_bfloat16>(c, a, b);
}
// m16n8k8, tf32: a[i] holds row g + 8 (i % 2), column q + 4 (i / 2); b[i] row q + 4 i, column g.
// The instruction reads no bits behind the tenth.
inline void hybridc_mma_rounded_tf32(float* c, const unsigned* a, const unsigned* b) {
  using namespace emulated;
  Fragments mine;
  std::memcpy(mine.a, a, 16);
  std::memcpy(mine.b, b, 8);
  publish(mine);
  float left[16][8], right[8][8];
  for (int from = 0; from < 32; ++from) {
    auto f = seen<Fragments>(from);
    int g = from / 4, q = from % 4;
    for (int i = 0; i < 4; ++i) left[g + 8 * (i % 2)][q + 4 * (i / 2)] = exact(f.a[i] & ~0x1FFFu);
    for (int i = 0; i < 2; ++i) right[q + 4 * i][g] = exact(f.b[i] & ~0x1FFFu);
  }
  int g = lane() / 4, q = lane() % 4;
  for (int i = 0; i < 4; ++i)
    for (int k = 0; k < 8; ++k) c[i] += left[g + 8 * (i / 2)][k] * right[k][2 * q + i % 2];
}
inline void hybridc_round_tf32(unsigned* bits) {
  for (int i = 0; i < 4; ++i) bits[i] = emulated::tf32(bits[i]);
}
inline void hybridc_mma_tf32(float* c, const unsigned* a, const unsigned* b) {
  unsigned left[4], right[2];
  for (int i = 0; i < 4; ++i) left[i] = emulated::tf32(a[i]);
  for (int i = 0; i < 2; ++i) right[i] = emulated::tf32(b[i]);
  hybridc_mma_rounded_tf32(c, left, right);
}
namespace emulated {
// m16n8k32, bytes: a[i] holds row g + 8 (i % 2), columns 4 q to 4 q + 3, 16 further for i >= 2;
// b[i] rows 4 q to 4 q + 3, 16 further for i = 1, of column g; c[i] as for 16 bits.
template <class A, class B>
void mma8(int* c, const unsigned* a, const unsigned* b) {
  Fragments mine;
  std::memcpy(mine.a, a, 16);
  std::memcpy(mine.b, b, 8);
  publish(mine);
  int left[16][32], right[32][8];
  for (int from = 0; from < 32; ++from) {
    auto f = seen<Fragments>(from);
    int g = from / 4, q = from % 4;
    for (int i = 0; i < 4; ++i)
      for (int e = 0; e < 4; ++e)
        left[g + 8 * (i % 2)][4 * q + e + 16 * (i / 2)] = static_cast<A>(f.a[i] >> 8 * e & 255);
    for (int i = 0; i < 2; ++i)
      for (int e = 0; e < 4; ++e)
        right[4 * q + e + 16 * i][g] = static_cast<B>(f.b[i] >> 8 * e & 255);
  }
  int g = lane() / 4, q = lane() % 4;
  for (int i = 0; i < 4; ++i)
    for (int k = 0; k < 32; ++k) c[i] += left[g + 8 * (i / 2)][k] * right[k][2 * q + i % 2];
}
}  // namespace emulated
#define MMA_BYTES(NAME, A, B)                                                     \
  inline void hybridc_mma_##NAME(int* c, const unsigned* a, const unsigned* b) { \
    emulated::mma8<A, B>(c, a, b);                                                \
  }
MMA_BYTES(uint8_uint8, uint8_t, uint8_t)
MMA_BYTES(uint8_int8, uint8_t, int8_t)
MMA_BYTES(int8_uint8, int8_t, uint8_t)
MMA_BYTES(int8_int8, int8_t, int8_t)

// dp4a: four bytes of each side, all signed or unsigned.
template <class A, class B>
void dot_bytes(int* c, const int* a, const int* b) {
  for (int i = 0; i < 16; ++i)
    *c += static_cast<A>(a[i / 4] >> 8 * (i % 4)) * static_cast<B>(b[i / 4] >> 8 * (i % 4));
}
#define DOT_BYTES(NAME, A, B)                                                     \
  inline void hybridc_dot_##NAME(int* c, const int* a, const int* b) {            \
    dot_bytes<A, B>(c, a, b);                                                     \
  }
DOT_BYTES(uint8_uint8, uint8_t, uint8_t)
DOT_BYTES(uint8_int8, uint8_t, int8_t)
DOT_BYTES(int8_uint8, int8_t, uint8_t)
DOT_BYTES(int8_int8, int8_t, int8_t)
