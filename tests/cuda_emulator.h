// Runs CUDA C++ on a CPU: each thread of a block is a coroutine, blocks run one after another, but for
// those of a cluster, which run together.
//
// Barriers and warp-wide functions are kept to the letter: a thread waits until all threads that
// have not returned are there, and what can never go on is an error.  The order in which threads
// run is chosen from outside, so that results which depend on it (races) show.  Asynchronous
// copies arrive as late as the program allows: when their group is waited for; so do products of
// warpgroups.  All accesses are watched besides, so that a race is found in whatever order threads run.
// What is the same for each program is in `cuda_emulator_run.cpp`, which is compiled once.
#pragma once
#include "cuda_emulator_watch.h"

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <type_traits>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __shared__ static __attribute__((section("emulated_shared")))
#define __restrict__
#define __grid_constant__

typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef signed char schar;
typedef unsigned long long ulonglong;

#define CUDART_INF_F INFINITY
#define CUDART_NAN_F NAN

// Each program has its own.
#pragma GCC visibility push(hidden)
struct Index { unsigned x, y, z; };
extern Index threadIdx, blockIdx, blockDim, gridDim;

namespace emulated {

enum State { kReady, kAtCluster, kAtBlock, kAtWarp, kDone };

extern int current;  // the thread that runs
extern int block_threads, cluster_blocks;
extern size_t shared_bytes;
extern const char* fault;  // what was wrong with the program, once anything was

// Called by a thread: it and all others end here.
void fail(const char* what);
void wait(State state);
void barrier(State state);
// Runs a kernel's blocks, with so many bytes of dynamic shared memory.
void launch(Index grid, Index block, size_t shared, int order, std::function<void()> kernel,
            int cluster);

// Bytes from the shared memory of a block of the cluster to that of the next.
size_t shared_apart();
unsigned char* shared_base(int block = current / block_threads);
const void* beside(const void* place, int block);

// That an access is aligned; that it is within the shared memory of a block of the cluster.
void check(const void* pointer, int bytes);
void check_shared(const void* pointer, int bytes);
// An asynchronous copy begins; those of the thread since the last group become one; all groups but
// the last n arrive.
void copy(void* to, const void* from, int valid, int bytes);
void commit();
void wait_for_copies(int n);
// An asynchronous product begins; all but the last n are computed.
void begin_product(std::function<void()> product);
void wait_for_products(int n);

inline int lane() { return current & 31; }

// Shows a value to the warp, and waits for those of all lanes.  A lane may be one exchange ahead of
// another, but not two: hence two places, in turn.
constexpr size_t kWidest = 32;
void* next_place();
const void* place_of(int lane);

template <class T>
void publish(const T& value) {
  static_assert(sizeof(T) <= kWidest, "too wide");
  std::memcpy(next_place(), &value, sizeof(T));
  wait(kAtWarp);
}

template <class T>
T seen(int from) {
  T value;
  std::memcpy(&value, place_of(from), sizeof(T));
  return value;
}

template <class T>
T show(T value, int from) {
  publish(value);
  return seen<T>(from);
}

}  // namespace emulated
#pragma GCC visibility pop

inline void __syncthreads() { emulated::barrier(emulated::kAtBlock); }
template <int blocks>
void hybridc_cluster_done() {
  if (blocks != emulated::cluster_blocks) emulated::fail("a cluster has another size");
  emulated::wait(emulated::kAtCluster);
}
template <int blocks>
void hybridc_cluster() {
  hybridc_cluster_done<blocks>();
  watch_barrier(kOfCluster);
}
inline const void* hybridc_beside(const void* place, int block) {
  return emulated::beside(place, block);
}
inline void __syncwarp(unsigned = ~0u) { emulated::barrier(emulated::kAtWarp); }
inline unsigned __activemask() { return ~0u; }
template <class T>
T __shfl_sync(unsigned, T value, int from, int width = 32) {
  int lane = emulated::lane();
  return emulated::show(value, (lane & ~(width - 1)) + (from & (width - 1)));
}
template <class T>
T __shfl_down_sync(unsigned, T value, unsigned by, int width = 32) {
  int lane = emulated::lane(), to = lane + static_cast<int>(by);
  return emulated::show(value, (lane & (width - 1)) + static_cast<int>(by) < width ? to : lane);
}
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask, int width = 32) {
  return emulated::show(value, emulated::lane() ^ mask);
}

inline bool __any_sync(unsigned, bool value) {
  emulated::publish(value);
  bool any = false;
  for (int lane = 0; lane < 32; ++lane) any |= emulated::seen<bool>(lane);
  return any;
}

#include "cuda_emulator_types.h"
