#pragma once
// What every CUDA kernel family needs of the runtime: errors, memory, facts of the devices. No CUDA header is
// needed to include this. Every thread of the host has a stream of its own (--default-stream=per-thread), so
// that one prepares rows while another's kernels run.
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace pycurate::cuda {

/// A CUDA call failed; `out_of_memory` tells whether less work at a time would help.
struct Error : std::runtime_error {
    Error(const std::string& sentence, bool out_of_memory_)
        : std::runtime_error(sentence), out_of_memory(out_of_memory_) {}
    bool out_of_memory;
};

/// Throws Error unless a call's status is success. `code` is a cudaError_t.
void check(int code, const char* doing);

struct Device {
    std::string name;
    int major, minor;  // compute capability
    int multiprocessors;
    std::size_t bytes, free_bytes;
    bool supported;  // kernels of this build run on it
};
/// Empty without a driver or a device; never throws.
std::vector<Device> devices() noexcept;
/// Of the driver and of the runtime that this was built with, as 13000 for 13.0; 0 without a driver.
std::pair<int, int> versions() noexcept;

/// Bytes of a device that are free.
std::size_t free_bytes(int device);
/// Waits for what was started on the default stream that all threads share, or on another: 1, 2 (this
/// thread's) or a cudaStream_t as a number, as DLPack and __cuda_array_interface__ name them.
void wait_for_shared_stream(int device);
void wait_for_stream(int device, std::uintptr_t stream);
/// The device on which an address lies; 0 for none.
int device_of_pointer(std::uintptr_t at);

/// Makes a device current for the life of this.
class Current {
  public:
    explicit Current(int device);
    ~Current();
    Current(const Current&) = delete;
    Current& operator=(const Current&) = delete;

  private:
    int before_;
};

void* allocate(std::size_t bytes);  // on the current device
void release(void* at) noexcept;
/// Memory of the host that every device reads by itself.
void* allocate_pinned(std::size_t bytes);
// See transfer.cu.
void copy_in(void* device, const void* host, std::size_t bytes);
void copy_out(void* host, const void* device, std::size_t bytes);
void fill(void* device, int byte, std::size_t bytes);
/// Waits for all work of this thread on the current device; throws what failed there.
void synchronize();

/// Memory of the device that was current.
template <class T>
class Buffer {
  public:
    Buffer() = default;
    explicit Buffer(std::size_t count)
        : at_(static_cast<T*>(allocate(count == 0 ? sizeof(T) : count * sizeof(T)))), count_(count) {}
    Buffer(Buffer&& other) noexcept
        : at_(std::exchange(other.at_, nullptr)), count_(std::exchange(other.count_, 0)) {}
    Buffer& operator=(Buffer&& other) noexcept {
        std::swap(at_, other.at_);
        std::swap(count_, other.count_);
        return *this;
    }
    ~Buffer() { release(at_); }
    static Buffer of(const T* host, std::size_t count) {
        Buffer result(count);
        copy_in(result.at_, host, count * sizeof(T));
        return result;
    }
    static Buffer of(const std::vector<T>& host) { return of(host.data(), host.size()); }
    std::vector<T> host() const {
        std::vector<T> result(count_);
        copy_out(result.data(), at_, count_ * sizeof(T));
        return result;
    }
    void zero() { fill(at_, 0, count_ * sizeof(T)); }
    T* get() const noexcept { return at_; }
    std::size_t size() const noexcept { return count_; }

  private:
    T* at_ = nullptr;
    std::size_t count_ = 0;
};

}  // namespace pycurate::cuda
