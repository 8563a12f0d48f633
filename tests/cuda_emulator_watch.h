// Tells what watches the emulated threads' accesses what happens: see cuda_emulator_watch.cpp.
#pragma once
#include <cstddef>

// The arrays that launches may touch, within one piece of memory.
void watch_arrays(void* const* begins, const size_t* sizes, int count, void* whole, size_t bytes);
void watch_launch();
// The blocks of a cluster begin, the first with this number, with their dynamic and static shared memory.
void watch_blocks(int number, int blocks, int threads, const void* dynamic, size_t bytes,
                  const void* fixed, size_t fixed_bytes);
// A thread goes on; -1 for none of the block's.
void watch_thread(int thread);
// The thread has passed a barrier.
enum Meeting { kOfWarp, kOfBlock, kOfCluster };
void watch_barrier(Meeting);
// The thread has let what it wrote be read asynchronously; somebody reads so.
void watch_fence();
void watch_async_read(const void* from, size_t bytes);
void watch_read(const void* from, size_t bytes);
void watch_write(const void* to, size_t bytes);
// An asynchronous copy begins, or has come.
void watch_copy(const void* to, size_t bytes, bool arrives);
// The first fault that was seen, or nothing.
const char* watch_told();
