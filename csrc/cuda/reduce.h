// Reductions over the threads of a block.
#pragma once

namespace gioada {
namespace cuda {

// Combines the values of all kThreads threads pairwise, in a fixed order; every thread gets the
// result. The caller may reuse `shared` without a barrier.
template <int kThreads, typename V, typename Combine>
__device__ __forceinline__ V block_reduce(V value,
                                          V* shared,  // [kThreads]
                                          const Combine& combine) {
  shared[threadIdx.x] = value;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) {
      shared[threadIdx.x] = combine(shared[threadIdx.x], shared[threadIdx.x + half]);
    }
  }
  __syncthreads();
  value = shared[0];
  __syncthreads();
  return value;
}

struct Sum {
  template <typename V>
  __device__ V operator()(V a, V b) const {
    return a + b;
  }
};
struct Max {
  __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

// The two sums of a mean loss: of weighted losses, and of weights.
struct LossSums {
  double loss, weight;

  __device__ LossSums operator+(const LossSums& other) const {
    return {loss + other.loss, weight + other.weight};
  }
};

// Adds up `count` pairs of sums in a block of kThreads threads; every thread gets the result.
template <int kThreads, typename T>
__device__ __forceinline__ LossSums total_of(const T* sums,  // [count, 2] loss, weight
                                             int64_t count,
                                             LossSums* shared) {  // [kThreads]
  LossSums total = {0., 0.};
  for (int64_t i = threadIdx.x; i < count; i += kThreads) {
    total.loss += sums[2 * i];
    total.weight += sums[2 * i + 1];
  }
  return block_reduce<kThreads>(total, shared, Sum());
}

}  // namespace cuda
}  // namespace gioada
