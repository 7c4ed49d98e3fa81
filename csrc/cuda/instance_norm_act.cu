// CUDA kernels: a reduction and an elementwise pass in each direction, bound by memory bandwidth.
//
// A thread processes several pixels of one group of adjacent channels. A group fills a 16-byte load
// if the shape and the addresses allow it, else it is one channel. threadIdx.x runs over groups,
// threadIdx.y over pixels. A reduction writes partial results for chunks of pixels, which depend
// only on shape and alignment; a small kernel combines them in a fixed order. No atomics: every run
// gives the same bits.

#include "cuda/launch.h"
#include "instance_norm_act.h"

namespace gioada {
namespace cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kLoadBytes = 16;
// Pixels per thread in a reduction are chosen to launch about kTargetBlocks blocks.
constexpr int kMinPixelsPerThread = 4;
constexpr int kMaxPixelsPerThread = 32;
constexpr int kTargetBlocks = 1024;
constexpr int kPixelsAtOnce = 4;  // pixels per thread in an elementwise pass
// A block that combines partial results has kTotalRows threads for each of kTotalChannels channels.
constexpr int kTotalChannels = 32;
constexpr int kTotalRows = 16;

// Assignment of channels and pixels to threads and blocks, the same in both directions.
struct Plan {
  int width, height;  // block size: groups of channels, pixels
  int groups;         // groups of channels in total
  int tiles;          // blocks along the groups
  int64_t chunk;      // pixels per block in a reduction
  unsigned chunks;    // per image
  int64_t pixels;     // per image

  dim3 block() const { return dim3(width, height); }
};

template <typename Arguments>
Plan plan_of(const Arguments& op, int vector) {
  Plan plan;
  plan.groups = static_cast<int>(op.channels() / vector);
  plan.width = plan.groups < 32 ? plan.groups : 32;
  plan.height = kThreads / plan.width;
  plan.tiles = static_cast<int>(divide_up(plan.groups, plan.width));
  plan.pixels = op.height() * op.width();
  int64_t each = divide_up(op.batch() * plan.tiles * plan.pixels, plan.height * kTargetBlocks);
  if (each < kMinPixelsPerThread) each = kMinPixelsPerThread;
  if (each > kMaxPixelsPerThread) each = kMaxPixelsPerThread;
  plan.chunk = each * plan.height;
  plan.chunks = checked_grid("instance_norm_act: chunks", divide_up(plan.pixels, plan.chunk)).x;
  return plan;
}

bool aligned(const TensorView& x) { return reinterpret_cast<uintptr_t>(x.data) % kLoadBytes == 0; }

// Number of elements in a load of kLoadBytes.
int elements_of_load(ScalarType type) {
  int elements = 1;
  with_float_type(type, [&](auto x) { elements = kLoadBytes / sizeof(x); });
  return elements;
}

// Channels per group: a whole load if all tensors allow it, else 1.
int vector_of(const InstanceNormAct& op) {
  const int vector = elements_of_load(op.x.type);
  const bool fits = op.channels() % vector == 0 && aligned(op.x) && aligned(op.residual) &&
                    aligned(op.out) && op.residual.strides[0] % vector == 0 &&
                    op.residual.strides[2] % vector == 0;
  return fits ? vector : 1;
}

int vector_of(const InstanceNormActBackward& op) {
  const int vector = elements_of_load(op.x.type);
  const bool fits = op.channels() % vector == 0 && aligned(op.x) && aligned(op.grad) &&
                    aligned(op.grad_x) && aligned(op.grad_residual);
  return fits ? vector : 1;
}

template <typename T, int kVector>
struct alignas(kVector * sizeof(T)) Pack {
  T elements[kVector];
};

template <int kVector, typename T>
__device__ __forceinline__ void load(const T* p, float* out) {
  const Pack<T, kVector> pack = *reinterpret_cast<const Pack<T, kVector>*>(p);
#pragma unroll
  for (int i = 0; i < kVector; ++i) out[i] = to_float(pack.elements[i]);
}

template <int kVector, typename T>
__device__ __forceinline__ void store(const float* values, T* p) {
  Pack<T, kVector> pack;
#pragma unroll
  for (int i = 0; i < kVector; ++i) convert(values[i], &pack.elements[i]);
  *reinterpret_cast<Pack<T, kVector>*>(p) = pack;
}

// Loads one value for each channel of a thread; the address need only be aligned to 4 bytes.
template <int kVector>
__device__ __forceinline__ void load_channels(const float* p, float* out) {
#pragma unroll
  for (int i = 0; i < kVector; ++i) out[i] = p[i];
}

// Mean and sum of squared deviations of each channel in a chunk. A thread sums differences from its
// first value; these are few, so cancellation is small relative to the variance. Means are merged
// in double and stored as two floats each, so a channel with a large offset loses no precision.
template <typename T, int kVector>
__global__ void __launch_bounds__(kThreads)
    moments_kernel(const InstanceNormAct op, const Plan plan,
                   // mean, its rounding error, sum of squared deviations
                   float* __restrict__ partial) {  // [batch, chunks, 3, channels]
  __shared__ double means[kThreads * kVector];
  __shared__ float squares[kThreads * kVector];
  __shared__ float counts[kThreads];
  const int64_t n = blockIdx.x / plan.chunks, chunk = blockIdx.x % plan.chunks;
  const int group = blockIdx.y * plan.width + threadIdx.x;
  const int64_t begin = chunk * plan.chunk, end = min(begin + plan.chunk, plan.pixels);
  const int at = (threadIdx.y * plan.width + threadIdx.x) * kVector;
  const T* x = op.x.as<const T>() + n * plan.pixels * op.channels() + group * kVector;

  float shift[kVector] = {}, sum[kVector] = {}, sum_squares[kVector] = {}, count = 0.f;
  const int64_t first = begin + threadIdx.y;
  if (group < plan.groups && first < end) {
    load<kVector>(x + first * op.channels(), shift);
#pragma unroll 4
    for (int64_t pixel = first; pixel < end; pixel += plan.height) {
      float value[kVector];
      load<kVector>(x + pixel * op.channels(), value);
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        const float difference = value[i] - shift[i];
        sum[i] += difference;
        sum_squares[i] += difference * difference;
      }
      count += 1.f;
    }
  }
  const float inverse = count > 0.f ? __fdividef(1.f, count) : 0.f;
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
    const float excess = sum[i] * inverse;
    means[at + i] = static_cast<double>(shift[i]) + excess;
    squares[at + i] = sum_squares[i] - sum[i] * excess;
  }
  if (threadIdx.x == 0) counts[threadIdx.y] = count;

  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    const int other = threadIdx.y + half;
    float both = 0.f;
    if (threadIdx.y < half && other < plan.height && counts[other] > 0.f) {
      const float theirs = counts[other];
      both = counts[threadIdx.y] + theirs;
      const float share = __fdividef(theirs, both);
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        const int from = at + half * plan.width * kVector + i;
        const float delta = static_cast<float>(means[from] - means[at + i]);
        means[at + i] += delta * share;
        squares[at + i] += squares[from] + delta * delta * (counts[threadIdx.y] * share);
      }
    }
    __syncthreads();  // before counts are overwritten
    if (threadIdx.x == 0 && both > 0.f) counts[threadIdx.y] = both;
  }
  if (threadIdx.y == 0 && group < plan.groups) {
    float* out = partial + blockIdx.x * 3 * op.channels() + group * kVector;
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      const float rounded = static_cast<float>(means[at + i]);
      out[i] = rounded;
      out[op.channels() + i] = static_cast<float>(means[at + i] - rounded);
      out[2 * op.channels() + i] = squares[at + i];
    }
  }
}

// Merges the chunks of an image. Row r of a block's threads merges chunks r, r + kTotalRows, ...
__global__ void __launch_bounds__(kTotalChannels* kTotalRows)
    statistics_kernel(const InstanceNormAct op, const Plan plan,
                      const float* __restrict__ partial) {  // [batch, chunks, 3, channels]
  __shared__ double counts[kTotalRows][kTotalChannels], means[kTotalRows][kTotalChannels],
      squares[kTotalRows][kTotalChannels];
  const int64_t n = blockIdx.x, c = blockIdx.y * kTotalChannels + threadIdx.x;
  double count = 0., mean = 0., sum = 0.;
  if (c < op.channels()) {
    for (int64_t chunk = threadIdx.y; chunk < plan.chunks; chunk += kTotalRows) {
      const float* from = partial + (n * plan.chunks + chunk) * 3 * op.channels() + c;
      const int64_t size = min(plan.chunk, plan.pixels - chunk * plan.chunk);
      const double chunk_mean = static_cast<double>(from[0]) + from[op.channels()];
      merge_moments(static_cast<double>(size), chunk_mean, from[2 * op.channels()], &count, &mean,
                    &sum);
    }
  }
  counts[threadIdx.y][threadIdx.x] = count;
  means[threadIdx.y][threadIdx.x] = mean;
  squares[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || c >= op.channels()) return;
  for (int row = 1; row < kTotalRows; ++row) {
    merge_moments(counts[row][threadIdx.x], means[row][threadIdx.x], squares[row][threadIdx.x],
                  &count, &mean, &sum);
  }
  op.mean.as<float>()[n * op.channels() + c] = static_cast<float>(mean);
  op.rstd.as<float>()[n * op.channels() + c] = reciprocal_deviation(sum / count, op.eps);
}

// A block writes part of a padded row.
template <typename T, int kVector>
__global__ void __launch_bounds__(kThreads)
    normalize_kernel(const InstanceNormAct op, const Plan plan) {
  const int64_t out_height = op.height() + 2 * op.pad, out_width = op.width() + 2 * op.pad;
  const unsigned rows = static_cast<unsigned>(out_height);
  const int64_t n = blockIdx.x / rows, out_y = blockIdx.x % rows;
  const int64_t y = reflect(out_y, op.height(), op.pad);
  const int group = blockIdx.y * plan.width + threadIdx.x;
  if (group >= plan.groups) return;
  const int64_t c = group * kVector;
  const T* x = op.x.as<const T>() + (n * op.height() + y) * op.width() * op.channels() + c;
  T* out = op.out.as<T>() + blockIdx.x * out_width * op.channels() + c;
  const T* residual = op.residual.as<const T>();
  if (residual != nullptr) {
    residual += n * op.residual.strides[0] + y * op.residual.strides[2] + c;
  }
  float mean[kVector], rstd[kVector];
  load_channels<kVector>(op.mean.as<float>() + n * op.channels() + c, mean);
  load_channels<kVector>(op.rstd.as<float>() + n * op.channels() + c, rstd);
  int64_t out_x = blockIdx.z * int64_t(kPixelsAtOnce) * plan.height + threadIdx.y;
#pragma unroll
  for (int k = 0; k < kPixelsAtOnce; ++k, out_x += plan.height) {
    if (out_x >= out_width) return;
    const int64_t from = reflect(out_x, op.width(), op.pad) * op.channels();
    float value[kVector], add[kVector] = {};
    load<kVector>(x + from, value);
    if (residual != nullptr) load<kVector>(residual + from, add);
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      value[i] = activate((value[i] - mean[i]) * rstd[i], op.negative_slope) + add[i];
    }
    store<kVector>(value, out + out_x * op.channels());
  }
}

// Sums the gradient over pixel (y, x) and its copies in the padding.
template <int kVector, typename T>
__device__ __forceinline__ void fold(const InstanceNormActBackward& op,
                                     const T* grad,  // [H + 2 pad, W + 2 pad, C] from a group on
                                     int64_t y, int64_t x,
                                     float* sum) {  // [kVector]
  const int64_t row_size = (op.width() + 2 * op.pad) * op.channels();
  load<kVector>(grad + (y + op.pad) * row_size + (x + op.pad) * op.channels(), sum);
  if (op.pad == 0) return;
#pragma unroll
  for (int i = 0; i < kPaddedCopies; ++i) {
    const int64_t row = padded_copy_of(i, y, op.height(), op.pad);
    if (row < 0) continue;
#pragma unroll
    for (int j = i == 0 ? 1 : 0; j < kPaddedCopies; ++j) {
      const int64_t column = padded_copy_of(j, x, op.width(), op.pad);
      if (column < 0) continue;
      float value[kVector];
      load<kVector>(grad + row * row_size + column * op.channels(), value);
#pragma unroll
      for (int k = 0; k < kVector; ++k) sum[k] += value[k];
    }
  }
}

// Sums of gz and gz (x - mean) of each channel in a chunk. Also writes the gradient of the
// residual.
template <typename T, int kVector>
__global__ void __launch_bounds__(kThreads)
    sums_kernel(const InstanceNormActBackward op, const Plan plan,
                float* __restrict__ partial) {  // [batch, chunks, 2, channels] gz, gz (x - mean)
  __shared__ float sums[2][kThreads * kVector];
  const int64_t n = blockIdx.x / plan.chunks, chunk = blockIdx.x % plan.chunks;
  const int group = blockIdx.y * plan.width + threadIdx.x;
  const int64_t begin = chunk * plan.chunk, end = min(begin + plan.chunk, plan.pixels);
  const int at = (threadIdx.y * plan.width + threadIdx.x) * kVector;

  float sum_gz[kVector] = {}, sum_gzx[kVector] = {};
  if (group < plan.groups) {
    const int64_t c = group * kVector, image = n * plan.pixels * op.channels() + c;
    const T* x = op.x.as<const T>() + image;
    const T* grad = op.grad.as<const T>() + c +
                    n * (op.height() + 2 * op.pad) * (op.width() + 2 * op.pad) * op.channels();
    T* residual = op.grad_residual.as<T>();
    float mean[kVector];
    load_channels<kVector>(op.mean.as<float>() + n * op.channels() + c, mean);
    int64_t pixel = begin + threadIdx.y;
    int64_t row = pixel / op.width(), column = pixel % op.width();
#pragma unroll 2
    for (; pixel < end; pixel += plan.height) {
      float value[kVector], gy[kVector];
      load<kVector>(x + pixel * op.channels(), value);
      fold<kVector>(op, grad, row, column, gy);
      if (residual != nullptr) store<kVector>(gy, residual + image + pixel * op.channels());
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        const float centred = value[i] - mean[i];
        const float gz = activation_gradient(centred, gy[i], op.negative_slope);
        sum_gz[i] += gz;
        sum_gzx[i] += gz * centred;
      }
      for (column += plan.height; column >= op.width(); column -= op.width()) ++row;
    }
  }
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
    sums[0][at + i] = sum_gz[i];
    sums[1][at + i] = sum_gzx[i];
  }
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.y < half && threadIdx.y + half < plan.height) {
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        const int from = at + half * plan.width * kVector + i;
        sums[0][at + i] += sums[0][from];
        sums[1][at + i] += sums[1][from];
      }
    }
  }
  if (threadIdx.y == 0 && group < plan.groups) {
    float* out = partial + blockIdx.x * 2 * op.channels() + group * kVector;
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      out[i] = sums[0][at + i];
      out[op.channels() + i] = sums[1][at + i];
    }
  }
}

// mean(gz) and rstd mean(gz z) of each image and channel, from the sums of the chunks.
__global__ void __launch_bounds__(kTotalChannels* kTotalRows)
    totals_kernel(const InstanceNormActBackward op, const Plan plan,
                  const float* __restrict__ partial,  // [batch, chunks, 2, channels]
                  float* __restrict__ totals) {       // [batch, 2, channels] the two means
  __shared__ double sums[2][kTotalRows][kTotalChannels];
  const int64_t n = blockIdx.x, c = blockIdx.y * kTotalChannels + threadIdx.x;
  double gz = 0., gzx = 0.;
  if (c < op.channels()) {
    for (int64_t chunk = threadIdx.y; chunk < plan.chunks; chunk += kTotalRows) {
      const float* from = partial + (n * plan.chunks + chunk) * 2 * op.channels() + c;
      gz += from[0];
      gzx += from[op.channels()];
    }
  }
  sums[0][threadIdx.y][threadIdx.x] = gz;
  sums[1][threadIdx.y][threadIdx.x] = gzx;
  __syncthreads();
  if (threadIdx.y > 0 || c >= op.channels()) return;
  for (int row = 1; row < kTotalRows; ++row) {
    gz += sums[0][row][threadIdx.x];
    gzx += sums[1][row][threadIdx.x];
  }
  const double rstd = op.rstd.as<float>()[n * op.channels() + c];
  totals[n * 2 * op.channels() + c] = static_cast<float>(gz / plan.pixels);
  totals[(n * 2 + 1) * op.channels() + c] = static_cast<float>(gzx / plan.pixels * rstd * rstd);
}

// A block writes part of a row.
template <typename T, int kVector>
__global__ void __launch_bounds__(kThreads)
    gradient_kernel(const InstanceNormActBackward op, const Plan plan,
                    const float* __restrict__ totals) {  // [batch, 2, channels]
  const unsigned rows = static_cast<unsigned>(op.height());
  const int64_t n = blockIdx.x / rows, y = blockIdx.x % rows;
  const int group = blockIdx.y * plan.width + threadIdx.x;
  if (group >= plan.groups) return;
  const int64_t c = group * kVector, row = blockIdx.x * op.width() * op.channels() + c;
  const T* x = op.x.as<const T>() + row;
  T* out = op.grad_x.as<T>() + row;
  const T* grad = op.grad.as<const T>() + c +
                  n * (op.height() + 2 * op.pad) * (op.width() + 2 * op.pad) * op.channels();
  float mean[kVector], rstd[kVector], mean_gz[kVector], slope[kVector];
  load_channels<kVector>(op.mean.as<float>() + n * op.channels() + c, mean);
  load_channels<kVector>(op.rstd.as<float>() + n * op.channels() + c, rstd);
  load_channels<kVector>(totals + n * 2 * op.channels() + c, mean_gz);
  load_channels<kVector>(totals + (n * 2 + 1) * op.channels() + c, slope);
  int64_t column = blockIdx.z * int64_t(kPixelsAtOnce) * plan.height + threadIdx.y;
#pragma unroll
  for (int k = 0; k < kPixelsAtOnce; ++k, column += plan.height) {
    if (column >= op.width()) return;
    float value[kVector], gy[kVector];
    load<kVector>(x + column * op.channels(), value);
    fold<kVector>(op, grad, y, column, gy);
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      const float centred = value[i] - mean[i];
      const float gz = activation_gradient(centred, gy[i], op.negative_slope);
      value[i] = norm_gradient(gz, centred, rstd[i], mean_gz[i], slope[i]);
    }
    store<kVector>(value, out + column * op.channels());
  }
}

dim3 reduction_grid(const char* kernel, int64_t batch, const Plan& plan) {
  return checked_grid(kernel, batch * plan.chunks, plan.tiles);
}

dim3 rows_grid(const char* kernel, int64_t rows, int64_t width, const Plan& plan) {
  return checked_grid(kernel, rows, plan.tiles, divide_up(width, kPixelsAtOnce * plan.height));
}

dim3 totals_grid(const char* kernel, int64_t batch, int64_t channels) {
  return checked_grid(kernel, batch, divide_up(channels, kTotalChannels));
}

template <typename T, int kVector>
void forward(const InstanceNormAct& op, float* partial, cudaStream_t stream) {
  const Plan plan = plan_of(op, kVector);
  const dim3 total_block(kTotalChannels, kTotalRows);
  const char* kernel = "instance_norm_act: moments";
  dim3 grid = reduction_grid(kernel, op.batch(), plan);
  moments_kernel<T, kVector><<<grid, plan.block(), 0, stream>>>(op, plan, partial);
  check_launch(kernel);

  kernel = "instance_norm_act: statistics";
  grid = totals_grid(kernel, op.batch(), op.channels());
  statistics_kernel<<<grid, total_block, 0, stream>>>(op, plan, partial);
  check_launch(kernel);

  kernel = "instance_norm_act: normalize";
  grid = rows_grid(kernel, op.batch() * op.out.shape[2], op.out.shape[3], plan);
  normalize_kernel<T, kVector><<<grid, plan.block(), 0, stream>>>(op, plan);
  check_launch(kernel);
}

template <typename T, int kVector>
void backward(const InstanceNormActBackward& op, float* workspace, cudaStream_t stream) {
  const Plan plan = plan_of(op, kVector);
  const dim3 total_block(kTotalChannels, kTotalRows);
  float* totals = workspace;
  float* partial = workspace + op.batch() * 2 * op.channels();
  const char* kernel = "instance_norm_act_backward: sums";
  dim3 grid = reduction_grid(kernel, op.batch(), plan);
  sums_kernel<T, kVector><<<grid, plan.block(), 0, stream>>>(op, plan, partial);
  check_launch(kernel);

  kernel = "instance_norm_act_backward: totals";
  grid = totals_grid(kernel, op.batch(), op.channels());
  totals_kernel<<<grid, total_block, 0, stream>>>(op, plan, partial, totals);
  check_launch(kernel);

  kernel = "instance_norm_act_backward: gradient";
  grid = rows_grid(kernel, op.batch() * op.height(), op.width(), plan);
  gradient_kernel<T, kVector><<<grid, plan.block(), 0, stream>>>(op, plan, totals);
  check_launch(kernel);
}

}  // namespace

int64_t instance_norm_act_workspace(const InstanceNormAct& op) {
  return op.batch() * plan_of(op, vector_of(op)).chunks * 3 * op.channels();
}

int64_t instance_norm_act_backward_workspace(const InstanceNormActBackward& op) {
  return op.batch() * (plan_of(op, vector_of(op)).chunks + 1) * 2 * op.channels();
}

// Both expect at least one pixel and a workspace of the size that the functions above return.
void instance_norm_act(const InstanceNormAct& op, float* workspace, void* stream_) {
  const cudaStream_t stream = static_cast<cudaStream_t>(stream_);
  with_float_type(op.x.type, [&](auto x) {
    using T = decltype(x);
    vector_of(op) > 1 ? forward<T, kLoadBytes / sizeof(T)>(op, workspace, stream)
                      : forward<T, 1>(op, workspace, stream);
  });
}

void instance_norm_act_backward(const InstanceNormActBackward& op, float* workspace,
                                void* stream_) {
  const cudaStream_t stream = static_cast<cudaStream_t>(stream_);
  with_float_type(op.x.type, [&](auto x) {
    using T = decltype(x);
    vector_of(op) > 1 ? backward<T, kLoadBytes / sizeof(T)>(op, workspace, stream)
                      : backward<T, 1>(op, workspace, stream);
  });
}

}  // namespace cuda
}  // namespace gioada
