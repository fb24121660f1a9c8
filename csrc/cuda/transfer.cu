// Copies between the memory of the CPU and that of a device, through pinned memory where they are large: from
// memory that is not pinned a device reads several times slower: 7 GB/s, and 32 by what is here (one H100
// machine).
#include "cuda/transfer.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <vector>

#include "common/thread_pool.h"
#include "cuda/device.h"

namespace pycurate::cuda {
namespace {

constexpr std::size_t half_bytes = std::size_t{32} << 20;
// Less than this is copied at once.
constexpr std::size_t least_bytes = std::size_t{1} << 20;
// What a thread fills at a time, and threads at most: eight of them fill faster than the bus carries.
constexpr std::size_t task_bytes = std::size_t{1} << 20, most_threads = 8;

/// Pinned halves that no upload uses at the moment. Pinning 64 MB takes 50 ms, so they stay until the process
/// ends, and are not returned then: the driver may be gone before.
class Halves {
  public:
    struct Pair {
        char* at[2];
    };
    static Pair take() {
        {
            const std::lock_guard lock(mutex());
            if (!idle().empty()) {
                const Pair pair = idle().back();
                idle().pop_back();
                return pair;
            }
        }
        auto* both = static_cast<char*>(allocate_pinned(2 * half_bytes));
        return {{both, both + half_bytes}};
    }
    static void give_back(Pair pair) {
        const std::lock_guard lock(mutex());
        idle().push_back(pair);
    }

  private:
    static std::mutex& mutex() {
        static auto* const result = new std::mutex;
        return *result;
    }
    static std::vector<Pair>& idle() {
        static auto* const result = new std::vector<Pair>;
        return *result;
    }
};

/// Halves for the life of this, and what tells that the device is done with them.
class Lanes {
  public:
    Lanes() : halves_(Halves::take()) {
        for (cudaEvent_t& event : done_)
            check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "preparing a copy");
    }
    ~Lanes() {
        cudaStreamSynchronize(nullptr);
        for (const cudaEvent_t event : done_)
            if (event != nullptr) cudaEventDestroy(event);
        Halves::give_back(halves_);
    }
    Lanes(const Lanes&) = delete;
    Lanes& operator=(const Lanes&) = delete;

    /// A half, once the device is done with it.
    char* half(std::size_t turn) const {
        check(cudaEventSynchronize(done_[turn % 2]), "copying");
        return halves_.at[turn % 2];
    }
    void send(std::size_t turn, char* to, std::size_t bytes) const {
        start(turn, to, halves_.at[turn % 2], bytes, cudaMemcpyHostToDevice, "copying to the device");
    }
    void receive(std::size_t turn, const char* from, std::size_t bytes) const {
        start(turn, halves_.at[turn % 2], from, bytes, cudaMemcpyDeviceToHost, "copying from the device");
    }

  private:
    void start(std::size_t turn, void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
               const char* doing) const {
        check(cudaMemcpyAsync(to, from, bytes, kind, nullptr), doing);
        check(cudaEventRecord(done_[turn % 2], nullptr), doing);
    }

    Halves::Pair halves_;
    cudaEvent_t done_[2] = {nullptr, nullptr};
};

/// `part(begin, end)` for units of `unit` bytes, by several threads.
template <class Part>
void in_parts(std::size_t units, std::size_t unit, const Part& part) {
    const std::size_t of_task = std::max<std::size_t>(task_bytes / unit, 1);
    parallel_for((units + of_task - 1) / of_task, std::min(thread_count(0), most_threads),
                 [&](std::size_t task) { part(task * of_task, std::min((task + 1) * of_task, units)); });
}

/// Sends n units that `fill(at, begin, end)` writes: one half is filled while the other is on its way.
template <class Fill>
void send_units(char* to, std::size_t unit, std::size_t n, const Fill& fill) {
    const Lanes lanes;
    const std::size_t step = half_bytes / unit;
    for (std::size_t begin = 0, turn = 0; begin < n; begin += step, ++turn) {
        const std::size_t count = std::min(step, n - begin);
        char* half = lanes.half(turn);
        in_parts(count, unit, [&](std::size_t first, std::size_t end) {
            fill(half + first * unit, begin + first, begin + end);
        });
        lanes.send(turn, to + begin * unit, count * unit);
    }
    synchronize();
}

}  // namespace

void copy_in(void* device, const void* host, std::size_t bytes) {
    if (bytes < least_bytes) {
        if (bytes > 0)
            check(cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice), "copying to the device");
        return;
    }
    send_units(static_cast<char*>(device), 1, bytes, [&](char* at, std::size_t begin, std::size_t end) {
        std::memcpy(at, static_cast<const char*>(host) + begin, end - begin);
    });
}

void copy_out(void* host, const void* device, std::size_t bytes) {
    if (bytes < least_bytes) {
        if (bytes > 0)
            check(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost), "copying from the device");
        return;
    }
    const Lanes lanes;
    auto* to = static_cast<char*>(host);
    const auto* from = static_cast<const char*>(device);
    const auto size_at = [&](std::size_t turn) { return std::min(half_bytes, bytes - turn * half_bytes); };
    const std::size_t turns = (bytes + half_bytes - 1) / half_bytes;
    lanes.receive(0, from, size_at(0));
    for (std::size_t turn = 0; turn < turns; ++turn) {
        if (turn + 1 < turns) lanes.receive(turn + 1, from + (turn + 1) * half_bytes, size_at(turn + 1));
        const char* half = lanes.half(turn);
        in_parts(size_at(turn), 1, [&](std::size_t begin, std::size_t end) {
            std::memcpy(to + turn * half_bytes + begin, half + begin, end - begin);
        });
    }
}

void upload_rows(char* to, std::size_t pitch, const char* from, std::ptrdiff_t stride,
                 const std::int64_t* numbers, std::size_t width, std::size_t n) {
    if (n == 0 || width == 0) return;
    const bool adjacent = numbers == nullptr && stride == static_cast<std::ptrdiff_t>(pitch);
    const auto fill = [&](char* at, std::size_t begin, std::size_t end) {
        if (adjacent) {
            std::memcpy(at, from + begin * pitch, (end - begin - 1) * pitch + width);
            return;
        }
        for (std::size_t i = begin; i < end; ++i, at += pitch)
            std::memcpy(at, from + (numbers != nullptr ? numbers[i] : static_cast<std::int64_t>(i)) * stride,
                        width);
    };
    if (n * pitch >= least_bytes && pitch <= half_bytes) {
        send_units(to, pitch, n, fill);
        return;
    }
    std::vector<char> packed(n * pitch);
    fill(packed.data(), 0, n);
    copy_in(to, packed.data(), packed.size());
}

}  // namespace pycurate::cuda
