#pragma once
#include <cstddef>
#include <memory>
#include <new>

namespace pycurate {

/// `size` elements of a trivial type from a cache line's start, not initialised: vectors of 64 bytes are
/// loaded at full rate, and a page nobody writes costs nothing. Moves, does not copy.
template <class T>
class AlignedBuffer {
  public:
    AlignedBuffer() = default;
    explicit AlignedBuffer(std::size_t size)
        : size_(size), data_(static_cast<T*>(::operator new[](size * sizeof(T), alignment))) {}
    T* data() noexcept { return data_.get(); }
    const T* data() const noexcept { return data_.get(); }
    T& operator[](std::size_t i) noexcept { return data_.get()[i]; }
    const T& operator[](std::size_t i) const noexcept { return data_.get()[i]; }
    std::size_t size() const noexcept { return size_; }
    std::size_t bytes() const noexcept { return size_ * sizeof(T); }

  private:
    static constexpr std::align_val_t alignment{64};
    struct Delete {
        void operator()(T* data) const noexcept { ::operator delete[](static_cast<void*>(data), alignment); }
    };
    std::size_t size_ = 0;
    std::unique_ptr<T[], Delete> data_;
};

}  // namespace pycurate
