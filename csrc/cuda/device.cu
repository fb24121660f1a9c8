#include "cuda/device.h"

#include <cuda_runtime.h>

#include <algorithm>

namespace pycurate::cuda {
namespace {

__global__ void nothing() {}

}  // namespace

void check(int code, const char* doing) {
    const auto status = static_cast<cudaError_t>(code);
    if (status == cudaSuccess) return;
    cudaGetLastError();  // forget it, so that the next call does not report it
    const char* hint = status == cudaErrorMemoryAllocation
                           ? "; pass fewer rows at a time, or join blocks of them with similarity_join"
                           : "";
    throw Error(std::string("CUDA failed while ") + doing + ": " + cudaGetErrorString(status) + " (" +
                    cudaGetErrorName(status) + ")" + hint,
                status == cudaErrorMemoryAllocation);
}

std::vector<Device> devices() noexcept {
    std::vector<Device> result;
    int count = 0, before = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess || cudaGetDevice(&before) != cudaSuccess) {
        cudaGetLastError();
        return result;
    }
    for (int i = 0; i < count; ++i) {
        cudaDeviceProp facts{};
        std::size_t free_bytes = 0, bytes = 0;
        if (cudaGetDeviceProperties(&facts, i) != cudaSuccess || cudaSetDevice(i) != cudaSuccess) continue;
        cudaMemGetInfo(&free_bytes, &bytes);
        cudaFuncAttributes attributes{};
        const bool supported = cudaFuncGetAttributes(&attributes, nothing) == cudaSuccess && facts.major >= 8;
        result.push_back({facts.name, facts.major, facts.minor, facts.multiProcessorCount,
                          facts.totalGlobalMem, free_bytes, supported});
    }
    cudaSetDevice(before);
    cudaGetLastError();
    return result;
}

std::pair<int, int> versions() noexcept {
    int driver = 0, runtime = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    cudaGetLastError();
    return {driver, runtime};
}

std::size_t free_bytes(int device) {
    const Current current(device);
    std::size_t free = 0, all = 0;
    check(cudaMemGetInfo(&free, &all), "asking for free memory");
    return free;
}

void wait_for_shared_stream(int device) { wait_for_stream(device, 1); }

void wait_for_stream(int device, std::uintptr_t stream) {
    const Current current(device);  // cudaStreamLegacy and cudaStreamPerThread are these numbers, too
    check(cudaStreamSynchronize(reinterpret_cast<cudaStream_t>(stream)), "waiting for a tensor");
}

int device_of_pointer(std::uintptr_t at) {
    cudaPointerAttributes facts{};
    if (at == 0) return 0;
    check(cudaPointerGetAttributes(&facts, reinterpret_cast<const void*>(at)), "looking at a tensor");
    return std::max(facts.device, 0);
}

Current::Current(int device) : before_(0) {
    check(cudaGetDevice(&before_), "asking for the current device");
    check(cudaSetDevice(device), "choosing a device");
}
Current::~Current() { cudaSetDevice(before_); }

void* allocate(std::size_t bytes) {
    void* at = nullptr;
    check(cudaMalloc(&at, bytes), "allocating memory on the device");
    return at;
}
void release(void* at) noexcept {
    if (at != nullptr) cudaFree(at);
}
void* allocate_pinned(std::size_t bytes) {
    void* at = nullptr;
    check(cudaHostAlloc(&at, bytes, cudaHostAllocPortable), "allocating pinned memory");
    return at;
}
void fill(void* device, int byte, std::size_t bytes) {
    if (bytes > 0) check(cudaMemset(device, byte, bytes), "clearing memory on the device");
}
void synchronize() { check(cudaStreamSynchronize(nullptr), "computing"); }

}  // namespace pycurate::cuda
