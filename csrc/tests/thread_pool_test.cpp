#include "common/thread_pool.h"

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>

#include "check.h"

namespace pycurate::tests {
namespace {

void every_task_runs_once() {
    for (const std::size_t tasks : {0, 1, 2, 1000}) {
        for (const std::size_t threads : {1, 2, 7}) {
            const auto runs = std::make_unique<std::atomic<int>[]>(tasks);
            check(parallel_for(tasks, threads, [&](std::size_t i) { ++runs[i]; }),
                  "nothing asked it to stop");
            for (std::size_t i = 0; i < tasks; ++i) check(runs[i] == 1, "task " + std::to_string(i));
        }
    }
}

void poll_stops_it() {
    std::atomic<std::size_t> ran{0};
    const auto slow = [&](std::size_t) {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        ++ran;
    };
    check(!parallel_for(10'000, 2, slow, [] { return true; }), "it says that it stopped");
    check(ran < 100, "few tasks ran");
}

const Test tests[] = {{"thread_pool: every task runs once", every_task_runs_once},
                      {"thread_pool: a poll that returns true stops it", poll_stops_it}};

}  // namespace
}  // namespace pycurate::tests
