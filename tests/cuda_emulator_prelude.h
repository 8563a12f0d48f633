// The functions of the prelude in plain C++, from the descriptions in NVIDIA's PTX manual 9.0.
#pragma once

namespace emulated {
// What lies behind an array of a thread: read, it makes no sense of anything; nobody may write it.
template <class T>
constexpr int behind = 64 / sizeof(T);
struct Tail {
  void* place;
  size_t size;
  Tail(void* at, size_t bytes) : place(at), size(bytes) { std::memset(place, 0xFF, size); }
  ~Tail() {
    auto at = static_cast<const unsigned char*>(place);
    for (size_t i = 0; i < size; ++i)
      if (at[i] != 0xFF) fail("what lies behind an array of a thread is written");
  }
};
inline void check(const void* pointer, int bytes) {
  auto address = reinterpret_cast<uintptr_t>(pointer);
  if (address % bytes) fail("an access is not aligned");
}
inline void check_shared(const void* pointer, int bytes) {
  check(pointer, bytes);
  auto at = static_cast<const unsigned char*>(pointer);
  // Of the block, or by way of `hybridc_beside` of another one of the cluster.
  size_t place = at - shared_base(0), apart = shared_apart();
  if (place / apart >= cluster_blocks || place % apart + bytes > shared_bytes)
    fail("an access is outside of the block's shared memory");
}
inline void copy(void* to, const void* from, int valid, int bytes) {
  check_shared(to, bytes);
  if (valid) {
    check(from, bytes);
    watch_read(from, valid);
  }
  watch_copy(to, bytes, false);
  threads[current].open.push_back(Copy{to, from, valid, bytes});
}
}  // namespace emulated

inline void hybridc_copy16(void* to, const void* from, int valid) {
  emulated::copy(to, from, valid, 16);
}
inline void hybridc_copy4(void* to, const void* from, int valid) {
  emulated::copy(to, from, valid, 4);
}
inline void hybridc_commit() {
  auto& t = emulated::threads[emulated::current];
  t.groups.push_back(std::move(t.open));
  t.open.clear();
}
template <int n>
void hybridc_wait() {
  auto& groups = emulated::threads[emulated::current].groups;
  while (static_cast<int>(groups.size()) > n) {
    for (const auto& copy : groups.front()) emulated::arrive(copy);
    groups.pop_front();
  }
}
inline void hybridc_prefetch(const void* from) { watch_read(from, 1); }
inline void hybridc_whole(const void*) {}

template <class T>
void hybridc_put(void* to, T value) {
  emulated::check_shared(to, sizeof(T));
  *static_cast<T*>(to) = value;
}
template <class T>
T hybridc_get(const void* from) {
  emulated::check_shared(from, sizeof(T));
  return *static_cast<const T*>(from);
}

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

template <class T>
void narrow(unsigned* to, const float* from) {
  for (int i = 0; i < 4; ++i) {
    T low(from[2 * i]), high(from[2 * i + 1]);
    std::memcpy(to + i, &low, 2);
    std::memcpy(reinterpret_cast<char*>(to + i) + 2, &high, 2);
  }
}
inline void hybridc_narrow_float16(unsigned* to, const float* from) { narrow<half>(to, from); }
inline void hybridc_narrow_bfloat16(unsigned* to, const float* from) {
  narrow<nv_bfloat16>(to, from);
}
inline void hybridc_narrow_tf32(unsigned* to, const float* from) {
  for (int row = 0; row < 2; ++row)
    for (int half = 0; half < 2; ++half)
      std::memcpy(to + row + 2 * half, from + 2 * row + half, 4);
  hybridc_round_tf32(to);
}
inline void hybridc_dot4(float* c, const float* a, const float* b) {
  for (int i = 0; i < 4; ++i) *c = std::fma(a[i], b[i], *c);
}
template <class T>
void hybridc_load4(T* to, const void* from) {
  emulated::check_shared(from, 16);
  std::memcpy(to, from, 16);
}
template <class T>
void hybridc_add4(T* to, const void* from) {
  T each[4];
  hybridc_load4(each, from);
  for (int i = 0; i < 4; ++i) to[i] += each[i];
}

inline void hybridc_fence_async() { watch_fence(); }

namespace emulated {
// Where an element lies in a tile that is swizzled by 128 bytes: bits 4 to 6 of an address are those
// of its place xor bits 7 to 9.  Along the depth a row has 128 bytes, eight of them 1024; by depth it
// is the other way round, in panels of 64 elements of the own axis.
inline const uint16_t* tile_element(const void* tile, bool by_depth, int own, int k) {
  auto start = reinterpret_cast<uintptr_t>(tile);
  uintptr_t place = by_depth ? own / 64 * 8192 + k / 8 * 1024 + k % 8 * 128 + own % 64 * 2
                             : own / 8 * 1024 + own % 8 * 128 + k * 2;
  uintptr_t at = (start + place) ^ ((start + place) >> 7 & 7) << 4;
  return reinterpret_cast<const uint16_t*>(at);
}

// m64nNk16, four times along the depth: warp i of four has rows 16 i to 16 i + 15, and of these and
// the columns each lane what it has of m16n8k16.
template <class T, int columns>
void wgmma(float* sums, const void* left, const void* right, bool left_by, bool right_by,
           bool begins) {
  check_shared(left, 1024);
  check_shared(right, 1024);
  if (show(left, 0) != left || show(right, 0) != right) fail("a warp multiplies different tiles");
  int g = current / 32 % 4 * 16 + lane() / 4, q = lane() % 4;
  auto elements = [=](int i, int k) {
    return std::make_pair(tile_element(left, left_by, g + 8 * (i / 2 % 2), k),
                          tile_element(right, right_by, i / 4 * 8 + 2 * q + i % 2, k));
  };
  // What may be read from now on is seen now, by one lane of those that read it, and read as late as
  // it may be.
  for (int i = 0; i < columns / 2; ++i)
    for (int k = 0; k < 64; ++k) {
      if (i % 2 == 0 && i < 4 && q == 0) watch_async_read(elements(i, k).first, 2);
      if (i % 4 < 2 && lane() < 4) watch_async_read(elements(i, k).second, 2);
    }
  threads[current].products.push_back([=] {
    for (int i = 0; i < columns / 2; ++i)
      for (int k = (sums[i] = begins ? 0 : sums[i], 0); k < 64; ++k) {
        auto [a, b] = elements(i, k);
        sums[i] += wide(static_cast<T*>(nullptr), *a) * wide(static_cast<T*>(nullptr), *b);
      }
  });
}

// The same with the left side in registers, in each of which lanes have what m16n8k16 takes there.
template <class T, int columns>
void wgmma_held(float* sums, const unsigned* weights, const void* right, bool by_depth) {
  check_shared(right, 1024);
  if (show(right, 0) != right) fail("a warp multiplies different tiles");
  struct Held { unsigned a[4]; };
  std::vector<float> left(2 * 64);
  std::vector<unsigned> given(weights, weights + 16);
  int q = lane() % 4;
  for (int step = 0; step < 4; ++step) {
    Held mine;
    std::memcpy(mine.a, weights + 4 * step, 16);
    publish(mine);
    for (int from = 0; from < 4; ++from) {
      auto f = seen<Held>(lane() / 4 * 4 + from);
      for (int i = 0; i < 4; ++i)
        for (int e = 0; e < 2; ++e)
          left[i % 2 * 64 + step * 16 + i / 2 * 8 + 2 * from + e] =
              wide(static_cast<T*>(nullptr), static_cast<uint16_t>(f.a[i] >> 16 * e));
    }
  }
  auto element = [=](int i, int k) {
    return tile_element(right, by_depth, i / 4 * 8 + 2 * q + i % 2, k);
  };
  for (int i = 0; i < columns / 2; ++i)
    for (int k = 0; k < 64; ++k)
      if (i % 4 < 2 && lane() < 4) watch_async_read(element(i, k), 2);
  threads[current].products.push_back([=] {
    if (std::memcmp(given.data(), weights, 64)) fault = "a product's operand is overwritten";
    for (int i = 0; i < columns / 2; ++i)
      for (int k = 0; k < 64; ++k)
        sums[i] += left[i / 2 % 2 * 64 + k] * wide(static_cast<T*>(nullptr), *element(i, k));
  });
}
}  // namespace emulated
#define WGMMA(TYPE, T, N)                                                                  \
  template <int left_by, int right_by, int begins = 0>                                     \
  void hybridc_wgmma_##TYPE##_##N(float* sums, const void* left, const void* right) {      \
    emulated::wgmma<T, N>(sums, left, right, left_by, right_by, begins);                   \
  }
template <int n>
void products() {
  auto& waiting = emulated::threads[emulated::current].products;
  while (static_cast<int>(waiting.size()) > n) {
    waiting.front()();
    waiting.pop_front();
  }
}
#define HELD(TYPE, T, N)                                                                    \
  template <int by_depth>                                                                  \
  void hybridc_wgmma_held_##TYPE##_##N(float* sums, const unsigned* left, const void* right) { \
    emulated::wgmma_held<T, N>(sums, left, right, by_depth);                               \
  }
#define COLUMNS(N)                                                 \
  template <int n> void hybridc_products_##N(float*) { products<n>(); } \
  WGMMA(float16, half, N)                                          \
  WGMMA(bfloat16, nv_bfloat16, N)                                  \
  HELD(float16, half, N)                                           \
  HELD(bfloat16, nv_bfloat16, N)
COLUMNS(16) COLUMNS(32) COLUMNS(48) COLUMNS(64) COLUMNS(80) COLUMNS(96) COLUMNS(112) COLUMNS(128)
COLUMNS(144) COLUMNS(160) COLUMNS(176) COLUMNS(192) COLUMNS(208) COLUMNS(224) COLUMNS(240)
COLUMNS(256)

template <int count> void hybridc_now(float*) {}
inline float hybridc_exp2(float power) { return power < -126.0f ? 0.0f : std::exp2(power); }

// What is plain C++ is run as it is.
#define HYBRIDC_INLINE static inline
#include "../compiler/cuda/softmax.cuh"
#include "../compiler/cuda/vectors.cuh"
