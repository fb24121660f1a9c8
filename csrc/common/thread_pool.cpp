#include "common/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

namespace pycurate {

std::size_t thread_count(std::size_t requested) noexcept {
    if (requested > 0) return requested;
    cpu_set_t mask;
    CPU_ZERO(&mask);
    if (sched_getaffinity(0, sizeof mask, &mask) != 0) return 1;
    return static_cast<std::size_t>(std::max(1, CPU_COUNT(&mask)));
}

// Threads are started per call: a start costs about 15 us, and the calls that use several run for
// milliseconds. No state outlives the call, so fork, interpreter shutdown and nested calls need no care.
bool parallel_for(std::size_t tasks, std::size_t threads, const std::function<void(std::size_t)>& task,
                  const std::function<bool()>& poll) {
    using Clock = std::chrono::steady_clock;
    std::atomic<std::size_t> next{0};
    std::atomic<bool> stop{false};
    const auto work = [&](bool may_poll) {
        auto polled = Clock::now();
        for (;;) {
            if (stop.load(std::memory_order_relaxed)) return;
            const std::size_t i = next.fetch_add(1, std::memory_order_relaxed);
            if (i >= tasks) return;
            task(i);
            if (may_poll && poll && Clock::now() - polled > std::chrono::milliseconds(100)) {
                if (poll()) stop.store(true, std::memory_order_relaxed);
                polled = Clock::now();
            }
        }
    };
    const std::size_t helpers = std::min(thread_count(threads), tasks == 0 ? 1 : tasks) - 1;
    std::vector<std::thread> pool;
    pool.reserve(helpers);
    for (std::size_t i = 0; i < helpers; ++i) pool.emplace_back(work, false);
    work(true);
    for (auto& thread : pool) thread.join();
    return !stop.load(std::memory_order_relaxed);
}

}  // namespace pycurate
