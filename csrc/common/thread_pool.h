#pragma once
#include <cstddef>
#include <functional>

namespace pycurate {

/// Threads that a call may use when it asks for `requested`: `requested` itself when > 0, else every
/// processor this process may run on (its affinity mask, not the machine's count).
std::size_t thread_count(std::size_t requested) noexcept;

/// Run task(0) ... task(tasks - 1), each once, on up to `threads` threads (0: see thread_count). The calling
/// thread works too, so that threads = 1 starts none. Tasks are taken in rising order. `task` must not throw.
///
/// `poll` (may be empty) is called by the calling thread between tasks, about every 100 ms; when it returns
/// true no further task starts and false is returned. True: every task ran.
bool parallel_for(std::size_t tasks, std::size_t threads, const std::function<void(std::size_t)>& task,
                  const std::function<bool()>& poll = {});

}  // namespace pycurate
