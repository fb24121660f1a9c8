#pragma once
// Functions that CUDA kernels share with the CPU's.
#if defined(__CUDACC__)
#define PYCURATE_HOST_DEVICE __host__ __device__
#else
#define PYCURATE_HOST_DEVICE
#endif
