// Functions of numbers that CUDA has none of, or longer ones.

// 1 + erf(x), or half of that: `most` is what it comes to.  erfc(y) = 2^P(y) for y >= 0, and P(0) = 0: a
// polynomial of least error times erfc(y) up to 4, beyond which erfc is no part of 1, by linear
// programming.  What it leaves, 1.4e-8, is less than the roundings: all of it is 1.3 units in the last
// place of 1, with what `ex2.approx` adds 2.
template <int most>
HYBRIDC_INLINE float hybridc_plus_erf(float x) {
  float y = fabsf(x);
  float power = -4.702385194832459e-05f;
  power = fmaf(power, y, 0.0004602572007570416f);
  power = fmaf(power, y, -0.0015397948445752263f);
  power = fmaf(power, y, -0.0006909013609401882f);
  power = fmaf(power, y, 0.028182126581668854f);
  power = fmaf(power, y, -0.1484510749578476f);
  power = fmaf(power, y, -0.9184221029281616f);
  power = fmaf(power, y, -1.6279082298278809f);
  float beyond = hybridc_exp2(most == 1 ? fmaf(power, y, -1.0f) : power * y);
  return x < 0.0f ? beyond : most - beyond;
}

// The largest and the least of two numbers, NaN where one of them is; CUDA's own of integers of two
// types.
#define HYBRIDC_EXTREME(NAME, BEYOND)                   \
  template <class T>                                    \
  HYBRIDC_INLINE T hybridc_##NAME(T a, T b) {           \
    return a BEYOND b || a != a ? a : b;                \
  }                                                     \
  template <class A, class B>                           \
  HYBRIDC_INLINE auto hybridc_##NAME(A a, B b) {        \
    return NAME(a, b);                                  \
  }
HYBRIDC_EXTREME(max, >)
HYBRIDC_EXTREME(min, <)

// Adds to `count` sums the products of a factor with others, every `stride`-th.
template <int count, int stride>
HYBRIDC_INLINE void hybridc_multiply(float* sums, const float* factor, const float* others) {
#pragma unroll
  for (int i = 0; i < count; ++i) sums[i] = fmaf(*factor, others[i * stride], sums[i]);
}

// Says how many blocks of a kernel a multiprocessor has room for: see `cuda.prelude`.
template <int blocks>
HYBRIDC_INLINE void hybridc_resident() {}
