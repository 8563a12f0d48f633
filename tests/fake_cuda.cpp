// A GPU that is none, for TVM's own runtime for CUDA: NVIDIA's driver and runtime library in one.
//
// Its memory is the host's, and it is strict about what is where.  "Machine code" is a shared library
// made by `fake_nvcc.py`, whose kernels run in the emulator, at once, whatever the stream; what a
// stream records runs when its graph is launched.  Limits of launches are those of sm_90.  Another GPU
// is told by the environment: FAKE_CUDA_VERSION (12040), FAKE_CUDA_BYTES, FAKE_CUDA_MAJOR (8).
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <elf.h>
#include <functional>
#include <map>
#include <string>
#include <unistd.h>
#include <vector>

#define API extern "C" __attribute__((visibility("default"))) int
typedef const char* Text;

namespace {
enum {
  kOk,
  kInvalid,
  kTooMuch,
  kForked,
  kNoImage = 209,
  kNotFound = 500,
  kIllegal = 700,
  kCapture = 900,
  kImplicit = 906,
};
typedef std::vector<std::function<int()>> Work;
struct Kernel {
  int (*launch)(const unsigned*, const unsigned*, size_t, void**, bool (*)(const void*));
  int count;
  size_t allowed = 48 << 10;
};
// As cuda.h has it.
struct Config {
  unsigned grid[3], block[3], shared;
  void* stream;
  void* attributes;
  unsigned count;
};

std::map<uintptr_t, size_t> memory;
size_t taken = 0;
int allocations = 0;
pid_t owner = 0;  // a fork of a process that has a GPU cannot use it
void* recording = nullptr;
Work recorded;
int last = kOk;  // of the runtime library, or whatever broke the context

int said(int status) {
  if (status) last = status;
  return status;
}

bool is_here(const void* place) {
  auto at = reinterpret_cast<uintptr_t>(place);
  auto next = memory.upper_bound(at);
  if (next == memory.begin()) return false;
  --next;
  return at < next->first + next->second;
}

bool is_here(const void* place, size_t size) {
  auto at = static_cast<const char*>(place);
  return !size || (is_here(at) && is_here(at + size - 1));
}

int usable() { return owner && owner != getpid() ? said(kForked) : kOk; }

size_t told(const char* name, size_t usual) {
  const char* found = std::getenv(name);
  return found ? std::strtoull(found, nullptr, 10) : usual;
}

int allocate(void** place, size_t size) {
  if (int status = usable()) return status;
  if (taken + size > told("FAKE_CUDA_BYTES", size_t(1) << 34)) return said(kTooMuch);
  ++allocations;
  taken += (size + 511) / 256 * 256;
  size_t room = (size + 511) / 256 * 256;
  *place = std::aligned_alloc(256, room);
  std::memset(*place, 0xA5, room);
  memory[reinterpret_cast<uintptr_t>(*place)] = room;
  return kOk;
}

int release(void* place) {
  auto found = memory.find(reinterpret_cast<uintptr_t>(place));
  if (place && found == memory.end()) return said(kInvalid);
  if (place) taken -= found->second, memory.erase(found);
  std::free(place);
  return kOk;
}

int begin(void* stream, std::function<int()> work) {
  if (recording && stream == recording) {
    recorded.push_back(std::move(work));
    return kOk;
  }
  // A stream that waits for the default one cannot record while that is used.
  if (recording && !stream) return said(kImplicit);
  return said(work());
}

int copy(void* to, const void* from, size_t size, bool to_gpu, bool from_gpu, void* stream) {
  if (to_gpu != is_here(to, size) && size) return said(kInvalid);
  if (from_gpu != is_here(from, size) && size) return said(kInvalid);
  return begin(stream, [=] { std::memcpy(to, from, size); return kOk; });
}

size_t size_of(const void* image) {
  auto head = static_cast<const Elf64_Ehdr*>(image);
  return head->e_shoff + size_t(head->e_shnum) * head->e_shentsize;
}

double now() {
  using namespace std::chrono;
  return duration<double>(steady_clock::now().time_since_epoch()).count();
}

int attribute(int number) {
  switch (number) {
    case 1: return 1024;             // threads of a block
    case 8: return 48 << 10;         // shared memory of a block
    case 10: return 32;              // of a warp
    case 13: return 1980000;         // kHz
    case 16: return 132;             // multiprocessors
    case 36: return 3201000;
    case 37: return 6144;
    case 38: return 50 << 20;
    case 39: return 2048;
    case 75: return told("FAKE_CUDA_MAJOR", 9);
    case 76: return 0;
    case 81: return 228 << 10;
    case 97: return 227 << 10;
    case 106: return 32;
    default: return 1;
  }
}
}  // namespace

API cuInit(unsigned) {
  if (!owner) owner = getpid();
  return usable();
}
API cuDriverGetVersion(int* version) { return *version = told("FAKE_CUDA_VERSION", 13000), kOk; }
API fake_allocations() { return allocations; }
API cuDeviceGetCount(int* count) { return *count = 1, kOk; }
API cuDeviceGet(int* device, int index) { return *device = index, kOk; }
API cuDeviceGetName(char* name, int size, int) {
  std::snprintf(name, size, "NVIDIA H200");
  return kOk;
}
API cuDeviceGetAttribute(int* value, int number, int) { return *value = attribute(number), kOk; }
API cuDevicePrimaryCtxRetain(void** context, int) { return *context = &memory, kOk; }
API cuCtxSetCurrent(void*) { return usable(); }
API cuGetErrorName(int status, Text* told) {
  *told = status == kIllegal ? "CUDA_ERROR_ILLEGAL_ADDRESS" : "CUDA_ERROR_INVALID_VALUE";
  return kOk;
}
API cuGetErrorString(int status, Text* told) {
  *told = status == kTooMuch  ? "out of memory"
          : status == kForked  ? "initialization error"
          : status == kIllegal ? "an illegal memory access was encountered"
          : status == kCapture ? "operation not permitted when stream is capturing"
                               : "invalid argument";
  return kOk;
}

API cuStreamCreate(void** stream, unsigned) { return *stream = std::malloc(8), kOk; }
API cuStreamDestroy_v2(void* stream) { return std::free(stream), kOk; }
API cuStreamSynchronize(void* stream) {
  return recording && stream == recording ? said(kCapture) : kOk;
}
API cuMemAlloc_v2(void** place, size_t size) { return allocate(place, size); }
API cuMemHostAlloc(void** place, size_t size, unsigned) { return *place = std::malloc(size), kOk; }
API cuMemFreeHost(void* place) { return std::free(place), kOk; }
API cuMemcpyHtoDAsync_v2(void* to, const void* from, size_t size, void* stream) {
  return copy(to, from, size, true, false, stream);
}
API cuMemcpyDtoHAsync_v2(void* to, const void* from, size_t size, void* stream) {
  return copy(to, from, size, false, true, stream);
}
API cuMemcpyDtoDAsync_v2(void* to, const void* from, size_t size, void* stream) {
  return copy(to, from, size, true, true, stream);
}
API cuMemsetD8Async(void* to, unsigned char value, size_t size, void* stream) {
  if (!is_here(to, size)) return kInvalid;
  return begin(stream, [=] { std::memset(to, value, size); return kOk; });
}
API cuEventCreate(double** event, unsigned) { return *event = new double(0), kOk; }
API cuEventRecord(double* event, void*) { return *event = now(), kOk; }
API cuEventSynchronize(double*) { return kOk; }
API cuStreamWaitEvent(void* stream, double*, unsigned) {
  return recording && !stream ? said(kImplicit) : kOk;
}
API cuEventElapsedTime(float* milliseconds, double* start, double* end) {
  return *milliseconds = static_cast<float>(1e3 * (*end - *start) + 1e-3), kOk;
}
API cuEventDestroy_v2(double* event) { return delete event, kOk; }
API cuStreamBeginCapture_v2(void* stream, int) {
  recording = stream;
  recorded.clear();
  return kOk;
}
API cuStreamEndCapture(void* stream, Work** graph) {
  if (stream != recording) return kInvalid;
  recording = nullptr;
  *graph = new Work(recorded);
  return kOk;
}
API cuGraphInstantiateWithFlags(Work** made, Work* graph, unsigned long long) {
  return *made = new Work(*graph), kOk;
}
API cuGraphDestroy(Work* graph) { return delete graph, kOk; }
API cuGraphExecDestroy(Work* graph) { return delete graph, kOk; }
API cuGraphLaunch(Work* graph, void*) {
  for (const auto& work : *graph)
    if (int status = work()) return said(status);
  return kOk;
}
API cuTensorMapEncodeTiled() { return kInvalid; }

API cuModuleLoadData(void** module, const void* image) {
  char path[] = "/tmp/hybridc-cubin-XXXXXX";
  int file = mkstemp(path);
  bool written = write(file, image, size_of(image)) == static_cast<ssize_t>(size_of(image));
  close(file);
  *module = written ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : nullptr;
  unlink(path);
  return *module ? kOk : kNoImage;
}
API cuModuleUnload(void* module) { return dlclose(module), kOk; }
API cuModuleGetFunction(Kernel** found, void* module, const char* name) {
  auto launch = dlsym(module, (std::string("launch_") + name).c_str());
  if (!launch) return kNotFound;
  int count = *static_cast<int*>(dlsym(module, (std::string("count_") + name).c_str()));
  *found = new Kernel{reinterpret_cast<decltype(Kernel::launch)>(launch), count};
  return kOk;
}
API cuFuncSetAttribute(Kernel* kernel, int number, int value) {
  if (number != 8 || value > 227 << 10) return kInvalid;
  kernel->allowed = value;
  return kOk;
}
API cuLaunchKernelEx(const Config* config, Kernel* kernel, void** given, void**) {
  auto [gx, gy, gz] = config->grid;
  auto [bx, by, bz] = config->block;
  bool fits = gx && gy && gz && gy < 65536 && gz < 65536 && bx * by * bz <= 1024 && bz <= 64;
  if (!fits || config->shared > kernel->allowed) return kInvalid;
  // The arguments are read now, as the caller may forget them.
  std::vector<uint64_t> held(kernel->count);
  std::vector<unsigned> sizes{gx, gy, gz, bx, by, bz};
  for (int i = 0; i < kernel->count; ++i) std::memcpy(&held[i], given[i], 8);
  size_t shared = config->shared;
  return begin(config->stream, [=]() mutable {
    std::vector<void*> places;
    for (auto& value : held) places.push_back(&value);
    return kernel->launch(sizes.data(), sizes.data() + 3, shared, places.data(), is_here);
  });
}

// The runtime library, as far as TVM calls it.
API cudaGetDeviceCount(int* count) { return cuDeviceGetCount(count); }
API cudaGetDevice(int* device) { return *device = 0, kOk; }
API cudaSetDevice(int) { return cuInit(0); }
API cudaDeviceGetAttribute(int* value, int number, int) { return *value = attribute(number), kOk; }
API cudaGetDeviceProperties(void*, int) { return kInvalid; }
API cudaMemGetInfo(size_t* left, size_t* all) { return *left = *all = size_t(1) << 34, kOk; }
API cudaMalloc(void** place, size_t size) { return cuInit(0) ? kForked : allocate(place, size); }
API cudaFree(void* place) { return release(place); }
API cudaMallocHost(void** place, size_t size) { return cuMemHostAlloc(place, size, 0); }
API cudaFreeHost(void* place) { return cuMemFreeHost(place); }
API cudaMemcpyAsync(void* to, const void* from, size_t size, int kind, void* stream) {
  return copy(to, from, size, kind != 2, kind != 1, stream);
}
API cudaMemcpyPeerAsync() { return kInvalid; }
API cudaGetLastError() {
  int status = last;
  last = kOk;
  return status;
}
API cudaPeekAtLastError() { return last; }
extern "C" __attribute__((visibility("default"))) Text cudaGetErrorName(int status) {
  Text told;
  return cuGetErrorName(status, &told), told;
}
extern "C" __attribute__((visibility("default"))) Text cudaGetErrorString(int status) {
  Text told;
  return cuGetErrorString(status, &told), told;
}
API cudaStreamCreate(void** stream) { return cuStreamCreate(stream, 0); }
API cudaStreamCreateWithFlags(void** stream, unsigned) { return cuStreamCreate(stream, 0); }
API cudaStreamDestroy(void* stream) { return std::free(stream), kOk; }
API cudaStreamSynchronize(void* stream) { return cuStreamSynchronize(stream); }
API cudaStreamWaitEvent(void*, double*, unsigned) { return kOk; }
API cudaEventCreate(double** event) { return cuEventCreate(event, 0); }
API cudaEventRecord(double* event, void* stream) { return cuEventRecord(event, stream); }
API cudaEventSynchronize(double*) { return kOk; }
API cudaEventElapsedTime(float* milliseconds, double* start, double* end) {
  return cuEventElapsedTime(milliseconds, start, end);
}
API cudaEventDestroy(double* event) { return cuEventDestroy_v2(event); }
API cudaStreamBeginCapture() { return kInvalid; }
API cudaStreamEndCapture() { return kInvalid; }
API cudaGraphInstantiate() { return kInvalid; }
API cudaGraphDestroy() { return kInvalid; }
API cudaGraphExecDestroy() { return kInvalid; }
API cudaGraphLaunch() { return kInvalid; }
