// CUDA's narrow floats, vectors and functions of numbers in plain C++.
#pragma once

// Narrow floats: rounded to nearest even from float, computed with as float.
struct half {
  _Float16 value;
  half() = default;
  template <class T, class = std::enable_if_t<std::is_arithmetic<T>::value>>
  half(T x) : value(static_cast<_Float16>(static_cast<float>(x))) {}
  operator float() const { return static_cast<float>(value); }
};
typedef half __half;
struct nv_bfloat16 {
  uint16_t bits;
  nv_bfloat16() = default;
  template <class T, class = std::enable_if_t<std::is_arithmetic<T>::value>>
  nv_bfloat16(T x) {
    float wide = static_cast<float>(x);
    uint32_t raw;
    std::memcpy(&raw, &wide, 4);
    if (wide != wide) { bits = 0x7FFF; return; }
    bits = static_cast<uint16_t>((raw + 0x7FFF + (raw >> 16 & 1)) >> 16);
  }
  operator float() const {
    uint32_t raw = static_cast<uint32_t>(bits) << 16;
    float wide;
    std::memcpy(&wide, &raw, 4);
    return wide;
  }
};
typedef nv_bfloat16 __nv_bfloat16;
inline half __float2half_rn(float x) { return half(x); }
inline half __float2half(float x) { return half(x); }
inline float __half2float(half x) { return x; }
inline float __int_as_float(int bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
inline float __uint_as_float(unsigned bits) { return __int_as_float(static_cast<int>(bits)); }
// Four of the eight bytes of both, each named by four bits.
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned which) {
  uint64_t all = static_cast<uint64_t>(high) << 32 | low;
  unsigned made = 0;
  for (int i = 0; i < 4; ++i)
    made |= static_cast<unsigned>(all >> 8 * (which >> 4 * i & 7) & 255) << 8 * i;
  return made;
}
inline nv_bfloat16 __float2bfloat16(float x) { return nv_bfloat16(x); }
inline nv_bfloat16 __float2bfloat16_rn(float x) { return nv_bfloat16(x); }
inline float __bfloat162float(nv_bfloat16 x) { return x; }
#define NARROW(T)                                                                \
  inline T operator+(T a, T b) { return T(float(a) + float(b)); }                \
  inline T operator-(T a, T b) { return T(float(a) - float(b)); }                \
  inline T operator*(T a, T b) { return T(float(a) * float(b)); }                \
  inline T operator/(T a, T b) { return T(float(a) / float(b)); }                \
  inline T operator-(T a) { return T(-float(a)); }                               \
  inline bool operator<(T a, T b) { return float(a) < float(b); }                \
  inline bool operator>(T a, T b) { return float(a) > float(b); }                \
  inline bool operator<=(T a, T b) { return float(a) <= float(b); }              \
  inline bool operator>=(T a, T b) { return float(a) >= float(b); }              \
  inline bool operator==(T a, T b) { return float(a) == float(b); }              \
  inline bool operator!=(T a, T b) { return float(a) != float(b); }              \
  inline T& operator+=(T& a, T b) { return a = a + b; }                          \
  inline T max(T a, T b) { return float(a) > float(b) ? a : b; }                 \
  inline T min(T a, T b) { return float(a) < float(b) ? a : b; }
NARROW(half)
NARROW(nv_bfloat16)
inline unsigned __pack_half2(half x, half y) {
  uint16_t a, b;
  std::memcpy(&a, &x, 2);
  std::memcpy(&b, &y, 2);
  return static_cast<unsigned>(b) << 16 | a;
}
inline unsigned __pack_nv_bfloat162(nv_bfloat16 x, nv_bfloat16 y) {
  return static_cast<unsigned>(y.bits) << 16 | x.bits;
}

inline float max(float a, float b) { return std::fmax(a, b); }
inline float min(float a, float b) { return std::fmin(a, b); }
inline int max(int a, int b) { return a > b ? a : b; }
inline int min(int a, int b) { return a < b ? a : b; }
inline int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __cosf(float x) { return std::cos(x); }
inline float __sinf(float x) { return std::sin(x); }
inline float __powf(float x, float y) { return std::pow(x, y); }
inline half hexp(half x) { return std::exp(float(x)); }
inline half htanh(half x) { return std::tanh(float(x)); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __frsqrt_rn(float x) { return 1.0f / std::sqrt(x); }

#define VECTORS(T, N)                                                                       \
  struct alignas(2 * sizeof(T)) N##2 { T x, y; };                                           \
  struct N##3 { T x, y, z; };                                                               \
  struct alignas(sizeof(T) * 4 > 16 ? 16 : sizeof(T) * 4) N##4 { T x, y, z, w; };           \
  inline N##2 make_##N##2(T x, T y) { return {x, y}; }                                      \
  inline N##4 make_##N##4(T x, T y, T z, T w) { return {x, y, z, w}; }
VECTORS(float, float)
VECTORS(int, int)
VECTORS(unsigned, uint)
VECTORS(signed char, char)
VECTORS(unsigned char, uchar)
VECTORS(short, short)
VECTORS(unsigned short, ushort)
VECTORS(double, double)
VECTORS(long long, longlong)
VECTORS(unsigned long long, ulonglong)
VECTORS(half, half)
VECTORS(nv_bfloat16, nv_bfloat16)
typedef nv_bfloat162 __nv_bfloat162;
