// Runs CUDA C++ on a CPU: each thread of a block is a coroutine, blocks run one after another, but for
// those of a cluster, which run together.
//
// Barriers and warp-wide functions are kept to the letter: a thread waits until all threads that
// have not returned are there, and what can never go on is an error.  The order in which threads
// run is chosen from outside, so that results which depend on it (races) show.  Asynchronous
// copies arrive as late as the program allows: when their group is waited for; so do products of
// warpgroups.  All accesses are watched besides, so that a race is found in whatever order threads run.
#pragma once
#include "cuda_emulator_watch.h"

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <type_traits>
#include <ucontext.h>
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

struct Index { unsigned x, y, z; };
static Index threadIdx, blockIdx, blockDim, gridDim;

// Where the linker puts static shared memory; nowhere if there is none.
#define HIDDEN __attribute__((weak, visibility("hidden")))
extern "C" char __start_emulated_shared[] HIDDEN, __stop_emulated_shared[] HIDDEN;

namespace emulated {

enum State { kReady, kAtCluster, kAtBlock, kAtWarp, kDone };
struct Copy { void* to; const void* from; int bytes, whole; };
struct Thread {
  ucontext_t context;
  std::vector<char> stack;
  State state;
  Index index, block;
  std::deque<std::vector<Copy>> groups;
  std::vector<Copy> open;
  std::deque<std::function<void()>> products;
  int turn;
};

static std::vector<Thread> threads;
static ucontext_t scheduler;
static int current;
static int block_threads, cluster_blocks;
static std::function<void()> body;
static std::vector<unsigned char> dynamic_shared;
static size_t shared_bytes;
static uint64_t slots[8 * 32 * 32][2][4];  // what lanes show each other, in turn

static const char* fault;  // what was wrong with the program, once anything was

// Called by a thread: it and all others end here.
inline void fail(const char* what) {
  fault = what;
  swapcontext(&threads[current].context, &scheduler);
}

inline void wait(State state) {
  threads[current].state = state;
  swapcontext(&threads[current].context, &scheduler);
}

inline void barrier(State state) {
  wait(state);
  watch_barrier(state == kAtBlock ? kOfBlock : kOfWarp);
}

inline void enter() {
  body();
  if (!threads[current].products.empty()) fault = "a product is not waited for";
  threads[current].state = kDone;
  swapcontext(&threads[current].context, &scheduler);
}

inline bool release(int from, int to, State state) {
  bool any = false;
  for (int i = from; i < to; ++i) {
    if (threads[i].state == kDone) continue;
    if (threads[i].state != state) return false;
    any = true;
  }
  if (any)
    for (int i = from; i < to; ++i)
      if (threads[i].state != kDone) threads[i].state = kReady;
  return any;
}

// Runs the blocks of a cluster.
inline void run_blocks(int order) {
  int count = static_cast<int>(threads.size());
  for (int i = 0; i < count; ++i) {
    Thread& t = threads[i];
    t.state = kReady;
    t.groups.clear();
    t.open.clear();
    t.products.clear();
    t.turn = 0;
    getcontext(&t.context);
    t.context.uc_stack.ss_sp = t.stack.data();
    t.context.uc_stack.ss_size = t.stack.size();
    t.context.uc_link = nullptr;
    makecontext(&t.context, enter, 0);
  }
  for (;;) {
    bool progress = false, all_done = true;
    for (int step = 0; step < count; ++step) {
      int mixed = count % 7 ? (step * 7 + 3) % count : step;
      int i = order == 0 ? step : order == 1 ? count - 1 - step : mixed;
      if (threads[i].state != kDone) all_done = false;
      if (threads[i].state != kReady) continue;
      progress = true;
      current = i;
      threadIdx = threads[i].index;
      blockIdx = threads[i].block;
      watch_thread(i);
      swapcontext(&scheduler, &threads[i].context);
      watch_thread(-1);
      if (fault) return;
    }
    if (all_done) return;
    for (int w = 0; w < count; w += 32)
      progress |= release(w, w + 32 < count ? w + 32 : count, kAtWarp);
    for (int b = 0; b < count; b += block_threads)
      progress |= release(b, b + block_threads, kAtBlock);
    progress |= release(0, count, kAtCluster);
    if (!progress) {
      fault = "threads wait for each other at different barriers";
      return;
    }
  }
}

// Bytes from the shared memory of a block of the cluster to that of the next.
inline size_t shared_apart() { return (shared_bytes + 2047) / 1024 * 1024; }

inline unsigned char* shared_base(int block = current / block_threads) {
  auto address = reinterpret_cast<uintptr_t>(dynamic_shared.data());
  return reinterpret_cast<unsigned char*>((address + 1023) / 1024 * 1024 + block * shared_apart());
}

inline void launch(Index grid, Index block, size_t shared, int order, std::function<void()> kernel,
                   int cluster) {
  block_threads = block.x * block.y * block.z;
  cluster_blocks = cluster;
  bool whole = cluster == 1 || (block_threads % 32 == 0 && grid.x % cluster == 0 && cluster <= 8);
  if (!whole) fault = "clusters are of eight blocks at most, and whole";
  int count = block_threads * cluster;
  threads.resize(count);
  for (int i = 0; i < count; ++i) {
    unsigned own = i % block_threads;
    threads[i].stack.resize(1 << 16);
    threads[i].index = Index{own % block.x, own / block.x % block.y, own / (block.x * block.y)};
  }
  gridDim = grid;
  blockDim = block;
  body = kernel;
  shared_bytes = shared;
  watch_launch();
  int number = 0;
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; x += cluster, number += cluster) {
        for (int i = 0; i < count; ++i) threads[i].block = Index{x + i / block_threads, y, z};
        // Nobody may rely on what lies there.
        dynamic_shared.assign(cluster * shared_apart() + 1024, 0xA5);
        watch_blocks(number, cluster, block_threads, shared_base(0), cluster * shared_apart(),
                     __start_emulated_shared, __stop_emulated_shared - __start_emulated_shared);
        if (!fault) run_blocks(order);
        if (!fault) fault = watch_told();
      }
}

inline int lane() { return current & 31; }

// Shows a value to the warp, and waits for those of all lanes.  A lane may be one exchange ahead of
// another, but not two: hence two places, in turn.
template <class T>
void publish(const T& value) {
  static_assert(sizeof(T) <= sizeof(slots[0][0]), "too wide");
  Thread& t = threads[current];
  t.turn ^= 1;
  std::memcpy(slots[current][t.turn], &value, sizeof(T));
  wait(kAtWarp);
}

template <class T>
T seen(int from) {
  T value;
  std::memcpy(&value, slots[(current & ~31) + from][threads[current].turn], sizeof(T));
  return value;
}

template <class T>
T show(T value, int from) {
  publish(value);
  return seen<T>(from);
}

inline void arrive(const Copy& copy) {
  watch_copy(copy.to, copy.whole, true);
  std::memcpy(copy.to, copy.from, copy.bytes);
  std::memset(static_cast<char*>(copy.to) + copy.bytes, 0, copy.whole - copy.bytes);
}

}  // namespace emulated

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
  using namespace emulated;
  if (block < 0 || block >= cluster_blocks) fail("a cluster has no such block");
  for (int i = 0; i < block_threads; ++i)
    if (threads[block * block_threads + i].state == kDone) fail("a block is asked that has ended");
  return static_cast<const unsigned char*>(place) + (shared_base(block) - shared_base());
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
