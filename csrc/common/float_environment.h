#pragma once
#include <cfenv>

namespace pycurate {

/// Default rounding and subnormals while it lives, then the caller's floating-point environment again.
/// Flush-to-zero, which other libraries set for a whole process, would change bits that we promise.
class DefaultFloatEnvironment {
  public:
    DefaultFloatEnvironment() noexcept {
        std::fegetenv(&callers_);
        std::fesetenv(FE_DFL_ENV);
    }
    ~DefaultFloatEnvironment() { std::fesetenv(&callers_); }
    DefaultFloatEnvironment(const DefaultFloatEnvironment&) = delete;
    DefaultFloatEnvironment& operator=(const DefaultFloatEnvironment&) = delete;

  private:
    std::fenv_t callers_;
};

}  // namespace pycurate
