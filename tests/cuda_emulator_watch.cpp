// What the emulated threads read and write, seen by the calls that `-fsanitize=thread` puts before
// each access.  The sanitizer's own runtime is not linked: these functions stand in for it.
//
// Shared memory: two threads may touch a byte, one of them writing, only with a barrier of the block
// or, within a warp, of the warp between them (as `compute-sanitizer --tool racecheck` has it); those
// of different blocks of a cluster only with a barrier of the cluster.
// Global memory: the same within a block, and never from two blocks of one launch; nothing may be
// touched outside of the arrays (as `--tool memcheck` has it).  Bytes that an asynchronous copy is
// bringing may not be touched before it is waited for.
#include "cuda_emulator_watch.h"

#include <cstdint>
#include <cstdio>
#include <unordered_map>
#include <vector>

namespace {

struct Place { int thread, met[3], fences; };  // `met`: barriers of the warp, block, cluster
struct Cell {
  unsigned launch;
  int block;              // of the launch, whose accesses the rest describes; or the first of a cluster
  Place writer, reader;   // the last ones; `thread` is -1 where there was none
  int others;             // readers since the last barrier: 0 one, 1 of one warp, 2 of one block, 3 more
  bool coming;            // an asynchronous copy is on its way here
  bool read_elsewhere;    // by another block of this launch
};
struct Range { uintptr_t begin, end; };

std::vector<Cell> shared_cells;
std::unordered_map<uintptr_t, Cell> global_cells;
Range dynamic_shared, static_shared, arena;
std::vector<Range> arrays;
std::vector<Place> places;
const Place nobody{-1, {0, 0, 0}, 0};
Place now;
unsigned launch;
int block, first_block, block_threads;
char told[200];

bool within(uintptr_t at, const Range& range) { return at >= range.begin && at < range.end; }

bool one_block(const Place& earlier) {
  return earlier.thread / block_threads == now.thread / block_threads;
}

bool one_warp(const Place& earlier) { return earlier.thread / 32 == now.thread / 32; }

// Whether threads that did something, as many as `others` says, met this one since.
bool met(const Place& earlier, int others) {
  if (earlier.met[kOfCluster] != now.met[kOfCluster]) return true;
  if (others > 2 || !one_block(earlier)) return false;
  if (earlier.met[kOfBlock] != now.met[kOfBlock]) return true;
  return others < 2 && one_warp(earlier) && earlier.met[kOfWarp] != now.met[kOfWarp];
}

bool ordered(const Place& earlier) {
  return earlier.thread < 0 || earlier.thread == now.thread || met(earlier, 0);
}

bool reads_ordered(const Cell& cell) {
  return cell.others ? met(cell.reader, cell.others) : ordered(cell.reader);
}

void tell(const char* what, int other, const char* where, uintptr_t at) {
  if (!told[0])
    std::snprintf(told, sizeof told, "%s (threads %d and %d of block %d, byte %zu of %s memory)",
                  what, other, now.thread, block, static_cast<size_t>(at), where);
}

void note_read(Cell& cell) {
  bool fresh = cell.reader.thread < 0 || met(cell.reader, cell.others > 1 ? cell.others : 2);
  if (fresh || (cell.others == 0 && cell.reader.thread == now.thread)) {
    cell.reader = now;
    cell.others = 0;
    return;
  }
  int least = one_warp(cell.reader) ? 1 : one_block(cell.reader) ? 2 : 3;
  if (cell.others < least) cell.others = least;
  cell.reader = now;
}

void touch(Cell& cell, bool write, const char* where, uintptr_t at) {
  int owner = *where == 's' ? first_block : block;
  bool elsewhere = false;
  if (cell.launch != launch || cell.block != owner) {
    bool other_block = cell.launch == launch;
    elsewhere = other_block && (cell.read_elsewhere || cell.reader.thread >= 0);
    if (other_block && (cell.writer.thread >= 0 || (write && elsewhere)))
      tell("two blocks of a launch touch what one of them writes", cell.writer.thread, where, at);
    cell = Cell{launch, owner, nobody, nobody, 0, false, elsewhere};
  } else if (write && cell.read_elsewhere) {
    tell("two blocks of a launch touch what one of them writes", cell.reader.thread, where, at);
  }
  if (cell.coming) tell("a copy that is under way is touched", cell.writer.thread, where, at);
  if (!ordered(cell.writer))
    tell(write ? "two writes without a barrier between them" : "a read races with a write",
         cell.writer.thread, where, at);
  if (!write) return note_read(cell);
  if (!reads_ordered(cell)) tell("a write races with a read", cell.reader.thread, where, at);
  cell.writer = now;
  cell.reader.thread = -1;
  cell.others = 0;
}

// The cell of a byte of shared memory, static behind dynamic; none where it is other memory.
Cell* shared_cell(uintptr_t at) {
  size_t place;
  if (within(at, dynamic_shared)) {
    place = at - dynamic_shared.begin;
  } else if (within(at, static_shared)) {
    place = dynamic_shared.end - dynamic_shared.begin + at - static_shared.begin;
  } else {
    return nullptr;
  }
  if (place >= shared_cells.size()) shared_cells.resize(place + 1024);
  return &shared_cells[place];
}

bool in_an_array(uintptr_t from, uintptr_t to) {
  for (const auto& array : arrays)
    if (from >= array.begin && to <= array.end) return true;
  return false;
}

void access(const void* pointer, size_t bytes, bool write) {
  if (now.thread < 0) return;
  auto at = reinterpret_cast<uintptr_t>(pointer);
  if (within(at, arena)) {
    if (!in_an_array(at, at + bytes))
      tell("an access is outside of the arrays", now.thread, "global", at - arena.begin);
    for (size_t i = 0; i < bytes; ++i)
      touch(global_cells[at + i], write, "global", at + i - arena.begin);
    return;
  }
  for (size_t i = 0; i < bytes; ++i) {
    Cell* cell = shared_cell(at + i);
    if (!cell) return;
    touch(*cell, write, "shared", at + i - (within(at, dynamic_shared) ? dynamic_shared.begin : 0));
  }
}

}  // namespace

void watch_arrays(void* const* begins, const size_t* sizes, int count, void* whole, size_t bytes) {
  auto start = reinterpret_cast<uintptr_t>(whole);
  arena = Range{start, start + bytes};
  arrays.clear();
  for (int i = 0; i < count; ++i) {
    auto begin = reinterpret_cast<uintptr_t>(begins[i]);
    arrays.push_back(Range{begin, begin + sizes[i]});
  }
  now.thread = -1;
  told[0] = 0;
}

void watch_launch() {
  ++launch;
  global_cells.clear();
}

void watch_blocks(int number, int blocks, int threads, const void* dynamic, size_t bytes,
                  const void* fixed, size_t fixed_bytes) {
  first_block = number;
  block_threads = threads;
  auto begin = reinterpret_cast<uintptr_t>(dynamic);
  dynamic_shared = Range{begin, begin + bytes};
  begin = reinterpret_cast<uintptr_t>(fixed);
  static_shared = Range{begin, begin + fixed_bytes};
  // Another block's memory is other memory.
  shared_cells.assign(shared_cells.size(), Cell{});
  places.assign(blocks * threads, nobody);
  for (int i = 0; i < blocks * threads; ++i) places[i].thread = i;
}

void watch_thread(int thread) {
  if (thread >= 0) now = places[thread];
  now.thread = thread;
  if (thread >= 0) block = first_block + thread / block_threads;
}

void watch_barrier(Meeting meeting) {
  Place& place = places[now.thread];
  ++place.met[meeting];
  now = place;
}

void watch_read(const void* from, size_t bytes) { access(from, bytes, false); }
void watch_write(const void* to, size_t bytes) { access(to, bytes, true); }

void watch_fence() { now.fences = ++places[now.thread].fences; }

void watch_async_read(const void* from, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) {
    auto at = reinterpret_cast<uintptr_t>(from) + i;
    Cell* cell = shared_cell(at);
    if (!cell || cell->launch != launch || cell->writer.thread < 0) continue;
    if (places[cell->writer.thread].fences == cell->writer.fences)
      tell("an asynchronous read of what no fence let it see", cell->writer.thread, "shared",
           at - dynamic_shared.begin);
  }
}

void watch_copy(const void* to, size_t bytes, bool arrives) {
  for (size_t i = 0; i < bytes; ++i) {
    Cell* cell = shared_cell(reinterpret_cast<uintptr_t>(to) + i);
    if (!cell) continue;
    if (arrives) cell->coming = false;
    touch(*cell, true, "shared", reinterpret_cast<uintptr_t>(to) + i - dynamic_shared.begin);
    if (!arrives) cell->coming = true;
  }
}

const char* watch_told() { return told[0] ? told : nullptr; }

#define ACCESS(N)                                                            \
  void __tsan_read##N(void* at) { access(at, N, false); }                    \
  void __tsan_write##N(void* at) { access(at, N, true); }                    \
  void __tsan_unaligned_read##N(void* at) { access(at, N, false); }          \
  void __tsan_unaligned_write##N(void* at) { access(at, N, true); }          \
  void __tsan_volatile_read##N(void* at) { access(at, N, false); }           \
  void __tsan_volatile_write##N(void* at) { access(at, N, true); }
extern "C" {
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)
void __tsan_read_range(void* at, long bytes) { access(at, bytes, false); }
void __tsan_write_range(void* at, long bytes) { access(at, bytes, true); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
}
