// Products of warpgroups, from the descriptions in NVIDIA's PTX manual 9.0.
#pragma once
#include <vector>

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
  begin_product([=] {
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
  begin_product([=] {
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
  emulated::wait_for_products(n);
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
