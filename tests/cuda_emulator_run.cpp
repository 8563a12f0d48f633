// What runs the threads of an emulated program, their copies and products: see cuda_emulator.h.
#include "cuda_emulator.h"

#include <deque>
#include <ucontext.h>
#include <vector>

#pragma GCC visibility push(hidden)

// Where the linker puts static shared memory; nowhere if there is none.
extern "C" char __start_emulated_shared[] __attribute__((weak));
extern "C" char __stop_emulated_shared[] __attribute__((weak));

Index threadIdx, blockIdx, blockDim, gridDim;

namespace emulated {

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
int current;
int block_threads, cluster_blocks;
static std::function<void()> body;
static std::vector<unsigned char> dynamic_shared;
size_t shared_bytes;
static uint64_t slots[8 * 32 * 32][2][kWidest / 8];  // what lanes show each other, in turn
const char* fault;

void fail(const char* what) {
  fault = what;
  swapcontext(&threads[current].context, &scheduler);
}

void wait(State state) {
  threads[current].state = state;
  swapcontext(&threads[current].context, &scheduler);
}

void barrier(State state) {
  wait(state);
  watch_barrier(state == kAtBlock ? kOfBlock : kOfWarp);
}

static void enter() {
  body();
  if (!threads[current].products.empty()) fault = "a product is not waited for";
  threads[current].state = kDone;
  swapcontext(&threads[current].context, &scheduler);
}

static bool release(int from, int to, State state) {
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
static void run_blocks(int order) {
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

size_t shared_apart() { return (shared_bytes + 2047) / 1024 * 1024; }

unsigned char* shared_base(int block) {
  auto address = reinterpret_cast<uintptr_t>(dynamic_shared.data());
  return reinterpret_cast<unsigned char*>((address + 1023) / 1024 * 1024 + block * shared_apart());
}

void launch(Index grid, Index block, size_t shared, int order, std::function<void()> kernel,
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

const void* beside(const void* place, int block) {
  if (block < 0 || block >= cluster_blocks) fail("a cluster has no such block");
  for (int i = 0; i < block_threads; ++i)
    if (threads[block * block_threads + i].state == kDone) fail("a block is asked that has ended");
  return static_cast<const unsigned char*>(place) +
         (shared_base(block) - shared_base(current / block_threads));
}

void* next_place() {
  Thread& t = threads[current];
  t.turn ^= 1;
  return slots[current][t.turn];
}

const void* place_of(int lane) {
  return slots[(current & ~31) + lane][threads[current].turn];
}

void check(const void* pointer, int bytes) {
  auto address = reinterpret_cast<uintptr_t>(pointer);
  if (address % bytes) fail("an access is not aligned");
}
void check_shared(const void* pointer, int bytes) {
  check(pointer, bytes);
  auto at = static_cast<const unsigned char*>(pointer);
  // Of the block, or by way of `hybridc_beside` of another one of the cluster.
  size_t place = at - shared_base(0), apart = shared_apart();
  if (place / apart >= cluster_blocks || place % apart + bytes > shared_bytes)
    fail("an access is outside of the block's shared memory");
}

void copy(void* to, const void* from, int valid, int bytes) {
  check_shared(to, bytes);
  if (valid) {
    check(from, bytes);
    watch_read(from, valid);
  }
  watch_copy(to, bytes, false);
  threads[current].open.push_back(Copy{to, from, valid, bytes});
}

static void arrive(const Copy& copy) {
  watch_copy(copy.to, copy.whole, true);
  std::memcpy(copy.to, copy.from, copy.bytes);
  std::memset(static_cast<char*>(copy.to) + copy.bytes, 0, copy.whole - copy.bytes);
}

void commit() {
  Thread& t = threads[current];
  t.groups.push_back(std::move(t.open));
  t.open.clear();
}

void wait_for_copies(int n) {
  auto& groups = threads[current].groups;
  while (static_cast<int>(groups.size()) > n) {
    for (const auto& copy : groups.front()) arrive(copy);
    groups.pop_front();
  }
}

void begin_product(std::function<void()> product) {
  threads[current].products.push_back(std::move(product));
}

void wait_for_products(int n) {
  auto& waiting = threads[current].products;
  while (static_cast<int>(waiting.size()) > n) {
    waiting.front()();
    waiting.pop_front();
  }
}

}  // namespace emulated
