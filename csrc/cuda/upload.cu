#include "cuda/upload.h"

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

/// Halves for the life of this, and what tells that the device has read them.
class Lanes {
  public:
    Lanes() : halves_(Halves::take()) {
        for (cudaEvent_t& event : read_)
            check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "preparing an upload");
    }
    ~Lanes() {
        cudaStreamSynchronize(nullptr);
        for (const cudaEvent_t event : read_)
            if (event != nullptr) cudaEventDestroy(event);
        Halves::give_back(halves_);
    }
    Lanes(const Lanes&) = delete;
    Lanes& operator=(const Lanes&) = delete;

    /// A half that the device has no more to read of.
    char* begin(std::size_t turn) const {
        check(cudaEventSynchronize(read_[turn % 2]), "copying rows to the device");
        return halves_.at[turn % 2];
    }
    void send(std::size_t turn, char* to, std::size_t bytes) const {
        check(cudaMemcpyAsync(to, halves_.at[turn % 2], bytes, cudaMemcpyHostToDevice, nullptr),
              "copying rows to the device");
        check(cudaEventRecord(read_[turn % 2], nullptr), "copying rows to the device");
    }

  private:
    Halves::Pair halves_;
    cudaEvent_t read_[2] = {nullptr, nullptr};
};

}  // namespace

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
    if (n * pitch < least_bytes || pitch > half_bytes) {
        std::vector<char> packed(n * pitch);
        fill(packed.data(), 0, n);
        copy_in(to, packed.data(), packed.size());
        return;
    }
    const Lanes lanes;
    const std::size_t step = half_bytes / pitch, rows_of_task = std::max<std::size_t>(task_bytes / pitch, 1);
    const std::size_t threads = std::min(thread_count(0), most_threads);
    for (std::size_t begin = 0, turn = 0; begin < n; begin += step, ++turn) {
        const std::size_t count = std::min(step, n - begin);
        char* half = lanes.begin(turn);
        parallel_for((count + rows_of_task - 1) / rows_of_task, threads, [&](std::size_t task) {
            const std::size_t first = task * rows_of_task;
            fill(half + first * pitch, begin + first, begin + std::min(first + rows_of_task, count));
        });
        lanes.send(turn, to + begin * pitch, count * pitch);
    }
    check(cudaStreamSynchronize(nullptr), "copying rows to the device");
}

}  // namespace pycurate::cuda
