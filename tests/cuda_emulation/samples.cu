// Kernels for test_emulator.py: a correct one, and one for each mistake that the emulator finds.

#include <cstring>

__global__ void correct(float* data) {  // [2 blocks, 64]: each block reverses its elements
  extern __shared__ float dynamic[];
  __shared__ float halves[2][32], total;
  float* block = data + blockIdx.x * blockDim.x;
  const int t = threadIdx.x, lane = t % 32, warp = t / 32;
  dynamic[t] = block[t];
  __syncwarp();
  halves[warp][31 - lane] = dynamic[t];
  if (t == 0) total = 64;
  __syncthreads();
  block[t] = halves[1 - warp][lane] + total - 64;
}

__global__ void race_of_threads(float* data) {
  __shared__ float shared[64];
  shared[threadIdx.x] = 0;
  __syncthreads();
  shared[threadIdx.x] += shared[63 - threadIdx.x];
}

__global__ void race_of_warps(float* data) {
  __shared__ float shared[64];
  shared[threadIdx.x] = 0;
  __syncthreads();
  data[threadIdx.x] = shared[63 - threadIdx.x];
  __syncwarp();  // orders a warp only
  shared[threadIdx.x] = 1;
}

__global__ void race_of_blocks(float* data) {
  if (threadIdx.x == 0) data[0] = blockIdx.x;
}

__global__ void race_after_reads(float* data) { data[threadIdx.x] = data[63]; }

__global__ void outside_of_tensor(float* data) { data[128 + threadIdx.x] = 0; }

__global__ void outside_of_shared(float* data) {
  __shared__ float first[32], second[32];
  first[threadIdx.x % 32] = second[threadIdx.x % 32] = 0;
  data[threadIdx.x] = first[threadIdx.x];
}

__global__ void misaligned(float* data) {
  float* shifted = reinterpret_cast<float*>(reinterpret_cast<char*>(data) + 2);
  if (threadIdx.x == 0) *shifted = 0;
}

__global__ void unwritten(float* data) {
  __shared__ float shared[64];
  data[threadIdx.x] = shared[threadIdx.x];
}

__global__ void diverging(float* data) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

__global__ void returning(float* data) {
  if (threadIdx.x < 32) return;
  __syncthreads();
}

__global__ void waiting(float* data) {
  if (threadIdx.x % 2 == 0) __syncwarp();
  if (threadIdx.x % 2 == 1) __syncthreads();
}

extern "C" __attribute__((visibility("default"))) void launch_sample(const char* name,
                                                                     float* data) {
  const auto is = [name](const char* other) { return strcmp(name, other) == 0; };
  if (is("correct")) correct<<<2, 64, 64 * sizeof(float)>>>(data);
  if (is("race_of_threads")) race_of_threads<<<2, 64>>>(data);
  if (is("race_of_warps")) race_of_warps<<<2, 64>>>(data);
  if (is("race_of_blocks")) race_of_blocks<<<2, 64>>>(data);
  if (is("race_after_reads")) race_after_reads<<<2, 64>>>(data);
  if (is("outside_of_tensor")) outside_of_tensor<<<2, 64>>>(data);
  if (is("outside_of_shared")) outside_of_shared<<<2, 64>>>(data);
  if (is("misaligned")) misaligned<<<2, 64>>>(data);
  if (is("unwritten")) unwritten<<<2, 64>>>(data);
  if (is("diverging")) diverging<<<2, 64>>>(data);
  if (is("returning")) returning<<<2, 64>>>(data);
  if (is("waiting")) waiting<<<2, 64>>>(data);
}
