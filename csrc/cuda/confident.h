#pragma once
// The GPU twins of the passes of kernels/confident that read every probability: the same bits. Rows lie in
// the memory of a device, or go there a piece at a time.
#include <functional>

#include "cuda/device.h"
#include "kernels/confident/confident.h"

namespace pycurate::cuda {

/// Rows of probabilities, and the device that reads them. labels (n,) are in host memory, as are answers.
struct Probabilities {
    int device;
    bool on_device;
    confident::Element element;
    confident::Rows rows;
};

/// See confident::summarise, confident::entropies and confident::self_probabilities; false when `poll`, which
/// is asked between pieces, ended it.
bool summarise(const Probabilities& of, const double* bounds, const confident::Summary& out,
               const confident::Poll& poll);
bool entropies(const Probabilities& of, double* out, const confident::Poll& poll);
bool self_probabilities(const Probabilities& of, double* out, const confident::Poll& poll);
/// Rows of a device to the host, one after another.
void copy_rows(const Probabilities& of, void* out);

}  // namespace pycurate::cuda
