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
}  // namespace emulated

inline void hybridc_copy16(void* to, const void* from, int valid) {
  emulated::copy(to, from, valid, 16);
}
inline void hybridc_copy8(void* to, const void* from, int valid) {
  emulated::copy(to, from, valid, 8);
}
inline void hybridc_copy4(void* to, const void* from, int valid) {
  emulated::copy(to, from, valid, 4);
}
inline void hybridc_commit() { emulated::commit(); }
template <int n>
void hybridc_wait() {
  emulated::wait_for_copies(n);
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

#include "cuda_emulator_mma.h"
#include "cuda_emulator_wgmma.h"

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
// What is added up here has few enough bits to be exact before it is rounded.
template <class T>
unsigned fma2(unsigned a, unsigned b, unsigned c) {
  unsigned made = 0;
  for (int i = 0; i < 32; i += 16) {
    double wide[3];
    int place = 0;
    for (unsigned each : {a, b, c})
      wide[place++] = emulated::wide(static_cast<T*>(nullptr), static_cast<uint16_t>(each >> i));
    T rounded(wide[0] * wide[1] + wide[2]);
    uint16_t bits;
    std::memcpy(&bits, &rounded, 2);
    made |= static_cast<unsigned>(bits) << i;
  }
  return made;
}
inline unsigned hybridc_masked(unsigned bits, unsigned mask, unsigned turned) {
  return (bits & mask) ^ turned;
}
inline unsigned hybridc_fma_float16(unsigned a, unsigned b, unsigned c) { return fma2<half>(a, b, c); }
inline unsigned hybridc_fma_bfloat16(unsigned a, unsigned b, unsigned c) {
  return fma2<nv_bfloat16>(a, b, c);
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

template <int count> void hybridc_now(float*) {}
inline float hybridc_exp2(float power) { return power < -126.0f ? 0.0f : std::exp2(power); }

// What is plain C++ is run as it is.
#define HYBRIDC_INLINE static inline
#include "../compiler/cuda/functions.cuh"
#include "../compiler/cuda/softmax.cuh"
#include "../compiler/cuda/vectors.cuh"
#include "../compiler/cuda/weights.cuh"
