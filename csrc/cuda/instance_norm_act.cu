// CUDA kernels: a reduction and an elementwise pass in each direction, bound by memory bandwidth.
//
// A thread processes several pixels of one vector of adjacent channels. A vector fills a 16-byte
// load if the shape and the addresses allow it, else it is one channel. threadIdx.x runs over
// vectors, threadIdx.y over pixels. A reduction writes partial results for chunks of pixels, which
// depend only on shape and alignment; a small kernel combines them in a fixed order, and with them
// the channels of a group. No atomics: every run gives the same bits.

#include <type_traits>

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
// A block that combines partial results has kTotalRows threads for each of kTotalChannels channels;
// the channels of a group are combined by one block.
constexpr int kTotalChannels = 32;
constexpr int kTotalRows = 16;

// Assignment of channels and pixels to threads and blocks, the same in both directions.
struct Plan {
  int width, height;  // block size: vectors of channels, pixels
  int vectors;        // of channels, in total
  int tiles;          // blocks along the vectors
  int64_t chunk;      // pixels per block in a reduction
  unsigned chunks;    // per image
  int64_t pixels;     // per image

  dim3 block() const { return dim3(width, height); }
};

template <typename Arguments>
Plan plan_of(const Arguments& op, int vector) {
  Plan plan;
  plan.vectors = static_cast<int>(op.channels() / vector);
  plan.width = plan.vectors < 32 ? plan.vectors : 32;
  plan.height = kThreads / plan.width;
  plan.tiles = static_cast<int>(divide_up(plan.vectors, plan.width));
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

// Channels per vector: a whole load if all tensors allow it, else 1.
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

struct Exp {
  __device__ float operator()(float x) const { return expf(x); }
};

// Values per channel of an image's normalisation, for the channels of a thread.
template <int kVector, typename Variant>
struct Normalization {
  float mean[kVector], rstd[kVector], weight[kVector], bias[kVector];

  template <typename Arguments>
  __device__ __forceinline__ Normalization(const Arguments& op, int64_t n, int64_t c) {
    load_channels<kVector>(op.mean.template as<float>() + n * op.channels() + c, mean);
    load_channels<kVector>(op.rstd.template as<float>() + n * op.channels() + c, rstd);
    if constexpr (Variant::kAffine) {
#pragma unroll
      for (int i = 0; i < kVector; ++i) weight[i] = 1.f, bias[i] = 0.f;
      if (op.weight) load_channels<kVector>(op.weight.template as<float>() + c, weight);
      if (op.bias) load_channels<kVector>(op.bias.template as<float>() + c, bias);
    }
  }

  // The activation's argument for centred = x - mean.
  __device__ __forceinline__ float argument(float centred, int i) const {
    const float z = centred * rstd[i];
    return Variant::kAffine ? z * weight[i] + bias[i] : z;
  }

  // gy act'(a), which is the gradient of the bias.
  __device__ __forceinline__ float gradient(float centred, float gy, float negative_slope,
                                            int i) const {
    const float a = Variant::kAffine ? argument(centred, i) : centred;
    return activation_gradient<Variant::kActivation>(a, gy, negative_slope, Exp());
  }
};

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
  const int vector_index = blockIdx.y * plan.width + threadIdx.x;
  const int64_t begin = chunk * plan.chunk, end = min(begin + plan.chunk, plan.pixels);
  const int at = (threadIdx.y * plan.width + threadIdx.x) * kVector;
  const T* x = op.x.as<const T>() + n * plan.pixels * op.channels() + vector_index * kVector;

  float shift[kVector] = {}, sum[kVector] = {}, sum_squares[kVector] = {}, count = 0.f;
  const int64_t first = begin + threadIdx.y;
  if (vector_index < plan.vectors && first < end) {
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
  if (threadIdx.y == 0 && vector_index < plan.vectors) {
    float* out = partial + blockIdx.x * 3 * op.channels() + vector_index * kVector;
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      const float rounded = static_cast<float>(means[at + i]);
      out[i] = rounded;
      out[op.channels() + i] = static_cast<float>(means[at + i] - rounded);
      out[2 * op.channels() + i] = squares[at + i];
    }
  }
}

// Channels that a block of a combining kernel owns: a whole group, or kTotalChannels groups of one
// channel.
struct Span {
  int64_t begin, end;
  bool is_group;

  template <typename Arguments>
  __device__ explicit Span(const Arguments& op) {
    is_group = op.group_size() > 1;
    const int64_t size = is_group ? op.group_size() : kTotalChannels;
    begin = blockIdx.y * size;
    end = min(begin + size, op.channels());
  }
};

// Merges the chunks of an image. Row r of a block's threads merges chunks r, r + kTotalRows, ...
__global__ void __launch_bounds__(kTotalChannels* kTotalRows)
    statistics_kernel(const InstanceNormAct op, const Plan plan,
                      const float* __restrict__ partial) {  // [batch, chunks, 3, channels]
  __shared__ double counts[kTotalRows][kTotalChannels], means[kTotalRows][kTotalChannels],
      squares[kTotalRows][kTotalChannels];
  const Span span(op);
  const int64_t n = blockIdx.x;
  const int row = threadIdx.y, column = threadIdx.x;
  double count = 0., mean = 0., sum = 0.;
  for (int64_t c = span.begin + column; c < span.end; c += kTotalChannels) {
    for (int64_t chunk = row; chunk < plan.chunks; chunk += kTotalRows) {
      const float* from = partial + (n * plan.chunks + chunk) * 3 * op.channels() + c;
      const int64_t size = min(plan.chunk, plan.pixels - chunk * plan.chunk);
      const double chunk_mean = static_cast<double>(from[0]) + from[op.channels()];
      merge_moments(static_cast<double>(size), chunk_mean, from[2 * op.channels()], &count, &mean,
                    &sum);
    }
  }
  const auto put = [&] {
    counts[row][column] = count;
    means[row][column] = mean;
    squares[row][column] = sum;
  };
  const auto merge = [&](int from_row, int from_column) {
    merge_moments(counts[from_row][from_column], means[from_row][from_column],
                  squares[from_row][from_column], &count, &mean, &sum);
  };
  put();
  __syncthreads();
  if (row == 0) {
    for (int other = 1; other < kTotalRows; ++other) merge(other, column);
  }
  if (span.is_group) {
    for (int half = kTotalChannels / 2; half > 0; half /= 2) {
      if (row == 0) put();
      __syncthreads();
      if (row == 0 && column < half) merge(0, column + half);
      __syncthreads();
    }
    if (row == 0 && column == 0) put();
    __syncthreads();
    count = counts[0][0], mean = means[0][0], sum = squares[0][0];
  }
  if (row > 0) return;
  for (int64_t c = span.begin + column; c < span.end; c += kTotalChannels) {
    op.mean.as<float>()[n * op.channels() + c] = static_cast<float>(mean);
    op.rstd.as<float>()[n * op.channels() + c] = reciprocal_deviation(sum / count, op.eps);
  }
}

// A block writes part of a padded row.
template <typename T, int kVector, typename Variant>
__global__ void __launch_bounds__(kThreads)
    normalize_kernel(const InstanceNormAct op, const Plan plan) {
  const int64_t out_height = op.height() + 2 * op.pad, out_width = op.width() + 2 * op.pad;
  const unsigned rows = static_cast<unsigned>(out_height);
  const int64_t n = blockIdx.x / rows, out_y = blockIdx.x % rows;
  const int64_t y = reflect(out_y, op.height(), op.pad);
  const int vector_index = blockIdx.y * plan.width + threadIdx.x;
  if (vector_index >= plan.vectors) return;
  const int64_t c = vector_index * kVector;
  const T* x = op.x.as<const T>() + (n * op.height() + y) * op.width() * op.channels() + c;
  T* out = op.out.as<T>() + blockIdx.x * out_width * op.channels() + c;
  const T* residual = op.residual.as<const T>();
  if (residual != nullptr) {
    residual += n * op.residual.strides[0] + y * op.residual.strides[2] + c;
  }
  const Normalization<kVector, Variant> norm(op, n, c);
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
      const float a = norm.argument(value[i] - norm.mean[i], i);
      value[i] = activate<Variant::kActivation>(a, op.negative_slope, Exp()) + add[i];
    }
    store<kVector>(value, out + out_x * op.channels());
  }
}

// Sums the gradient over pixel (y, x) and its copies in the padding.
template <int kVector, typename T>
__device__ __forceinline__ void fold(const InstanceNormActBackward& op,
                                     const T* grad,  // [H + 2 pad, W + 2 pad, C] from a vector on
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

// Sums of ga = gy act'(a) and ga (x - mean) of each channel in a chunk. Also writes the gradient of
// the residual.
template <typename T, int kVector, typename Variant>
__global__ void __launch_bounds__(kThreads)
    sums_kernel(const InstanceNormActBackward op, const Plan plan,
                float* __restrict__ partial) {  // [batch, chunks, 2, channels] ga, ga (x - mean)
  __shared__ float sums[2][kThreads * kVector];
  const int64_t n = blockIdx.x / plan.chunks, chunk = blockIdx.x % plan.chunks;
  const int vector_index = blockIdx.y * plan.width + threadIdx.x;
  const int64_t begin = chunk * plan.chunk, end = min(begin + plan.chunk, plan.pixels);
  const int at = (threadIdx.y * plan.width + threadIdx.x) * kVector;

  float sum_ga[kVector] = {}, sum_gax[kVector] = {};
  if (vector_index < plan.vectors) {
    const int64_t c = vector_index * kVector, image = n * plan.pixels * op.channels() + c;
    const T* x = op.x.as<const T>() + image;
    const T* grad = op.grad.as<const T>() + c +
                    n * (op.height() + 2 * op.pad) * (op.width() + 2 * op.pad) * op.channels();
    T* residual = op.grad_residual.as<T>();
    const Normalization<kVector, Variant> norm(op, n, c);
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
        const float centred = value[i] - norm.mean[i];
        const float ga = norm.gradient(centred, gy[i], op.negative_slope, i);
        sum_ga[i] += ga;
        sum_gax[i] += ga * centred;
      }
      for (column += plan.height; column >= op.width(); column -= op.width()) ++row;
    }
  }
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
    sums[0][at + i] = sum_ga[i];
    sums[1][at + i] = sum_gax[i];
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
  if (threadIdx.y == 0 && vector_index < plan.vectors) {
    float* out = partial + blockIdx.x * 2 * op.channels() + vector_index * kVector;
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      out[i] = sums[0][at + i];
      out[op.channels() + i] = sums[1][at + i];
    }
  }
}

// mean(gz) and rstd mean(gz z) of each image and group, from the sums of the chunks, and each
// image's share in the gradients of weight and bias.
__global__ void __launch_bounds__(kTotalChannels* kTotalRows)
    totals_kernel(const InstanceNormActBackward op, const Plan plan,
                  const float* __restrict__ partial,  // [batch, chunks, 2, channels]
                  float* __restrict__ totals,         // [batch, 2, channels] the two means
                  float* __restrict__ shares) {       // [batch, 2, channels] weight, bias
  __shared__ double sums[2][kTotalRows][kTotalChannels];
  const Span span(op);
  const int64_t n = blockIdx.x;
  const int row = threadIdx.y, column = threadIdx.x;
  double gz = 0., gzx = 0.;
  for (int64_t tile = span.begin; tile < span.end; tile += kTotalChannels) {
    const int64_t c = tile + column;
    double ga = 0., gax = 0.;
    if (c < span.end) {
      for (int64_t chunk = row; chunk < plan.chunks; chunk += kTotalRows) {
        const float* from = partial + (n * plan.chunks + chunk) * 2 * op.channels() + c;
        ga += from[0];
        gax += from[op.channels()];
      }
    }
    sums[0][row][column] = ga;
    sums[1][row][column] = gax;
    __syncthreads();
    if (row == 0 && c < span.end) {
      for (int other = 1; other < kTotalRows; ++other) {
        ga += sums[0][other][column];
        gax += sums[1][other][column];
      }
      const double weight = op.weight ? op.weight.as<float>()[c] : 1.f;
      gz += weight * ga;
      gzx += weight * gax;
      float* out = shares + n * 2 * op.channels() + c;
      out[0] = static_cast<float>(gax * op.rstd.as<float>()[n * op.channels() + c]);
      out[op.channels()] = static_cast<float>(ga);
    }
    __syncthreads();  // before the next tile overwrites the sums
  }
  if (span.is_group) {
    for (int half = kTotalChannels / 2; half > 0; half /= 2) {
      if (row == 0) sums[0][0][column] = gz, sums[1][0][column] = gzx;
      __syncthreads();
      if (row == 0 && column < half) gz += sums[0][0][column + half];
      if (row == 0 && column < half) gzx += sums[1][0][column + half];
      __syncthreads();
    }
    if (row == 0 && column == 0) sums[0][0][0] = gz, sums[1][0][0] = gzx;
    __syncthreads();
    gz = sums[0][0][0], gzx = sums[1][0][0];
  }
  if (row > 0) return;
  const double elements = static_cast<double>(plan.pixels * op.group_size());
  for (int64_t c = span.begin + column; c < span.end; c += kTotalChannels) {
    const double rstd = op.rstd.as<float>()[n * op.channels() + c];
    totals[n * 2 * op.channels() + c] = static_cast<float>(gz / elements);
    totals[(n * 2 + 1) * op.channels() + c] = static_cast<float>(gzx / elements * rstd * rstd);
  }
}

// Adds up the images' shares in the gradients of weight and bias.
__global__ void __launch_bounds__(kThreads)
    affine_kernel(const InstanceNormActBackward op,
                  const float* __restrict__ shares) {  // [batch, 2, channels] weight, bias
  const int64_t c = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (c >= op.channels()) return;
  double weight = 0., bias = 0.;
  for (int64_t n = 0; n < op.batch(); ++n) {
    weight += shares[n * 2 * op.channels() + c];
    bias += shares[(n * 2 + 1) * op.channels() + c];
  }
  op.grad_affine.as<float>()[c] = static_cast<float>(weight);
  op.grad_affine.as<float>()[op.channels() + c] = static_cast<float>(bias);
}

// A block writes part of a row.
template <typename T, int kVector, typename Variant>
__global__ void __launch_bounds__(kThreads)
    gradient_kernel(const InstanceNormActBackward op, const Plan plan,
                    const float* __restrict__ totals) {  // [batch, 2, channels]
  const unsigned rows = static_cast<unsigned>(op.height());
  const int64_t n = blockIdx.x / rows, y = blockIdx.x % rows;
  const int vector_index = blockIdx.y * plan.width + threadIdx.x;
  if (vector_index >= plan.vectors) return;
  const int64_t c = vector_index * kVector, row = blockIdx.x * op.width() * op.channels() + c;
  const T* x = op.x.as<const T>() + row;
  T* out = op.grad_x.as<T>() + row;
  const T* grad = op.grad.as<const T>() + c +
                  n * (op.height() + 2 * op.pad) * (op.width() + 2 * op.pad) * op.channels();
  const Normalization<kVector, Variant> norm(op, n, c);
  float mean_gz[kVector], slope[kVector];
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
      const float centred = value[i] - norm.mean[i];
      float gz = norm.gradient(centred, gy[i], op.negative_slope, i);
      if constexpr (Variant::kAffine) gz *= norm.weight[i];
      value[i] = norm_gradient(gz, centred, norm.rstd[i], mean_gz[i], slope[i]);
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

template <typename Arguments>
dim3 totals_grid(const char* kernel, const Arguments& op) {
  const int64_t spans = op.group_size() > 1 ? op.groups : divide_up(op.channels(), kTotalChannels);
  return checked_grid(kernel, op.batch(), spans);
}

template <typename T, int kVector, typename Variant>
void forward(const InstanceNormAct& op, float* partial, cudaStream_t stream) {
  const Plan plan = plan_of(op, kVector);
  const dim3 total_block(kTotalChannels, kTotalRows);
  const char* kernel = "instance_norm_act: moments";
  dim3 grid = reduction_grid(kernel, op.batch(), plan);
  moments_kernel<T, kVector><<<grid, plan.block(), 0, stream>>>(op, plan, partial);
  check_launch(kernel);

  kernel = "instance_norm_act: statistics";
  grid = totals_grid(kernel, op);
  statistics_kernel<<<grid, total_block, 0, stream>>>(op, plan, partial);
  check_launch(kernel);

  kernel = "instance_norm_act: normalize";
  grid = rows_grid(kernel, op.batch() * op.out.shape[2], op.out.shape[3], plan);
  normalize_kernel<T, kVector, Variant><<<grid, plan.block(), 0, stream>>>(op, plan);
  check_launch(kernel);
}

template <typename T, int kVector, typename Variant>
void backward(const InstanceNormActBackward& op, float* workspace, cudaStream_t stream) {
  const Plan plan = plan_of(op, kVector);
  const dim3 total_block(kTotalChannels, kTotalRows);
  float* totals = workspace;
  float* shares = totals + op.batch() * 2 * op.channels();
  float* partial = shares + op.batch() * 2 * op.channels();
  const char* kernel = "instance_norm_act_backward: sums";
  dim3 grid = reduction_grid(kernel, op.batch(), plan);
  sums_kernel<T, kVector, Variant><<<grid, plan.block(), 0, stream>>>(op, plan, partial);
  check_launch(kernel);

  kernel = "instance_norm_act_backward: totals";
  grid = totals_grid(kernel, op);
  totals_kernel<<<grid, total_block, 0, stream>>>(op, plan, partial, totals, shares);
  check_launch(kernel);

  if (op.grad_affine) {
    kernel = "instance_norm_act_backward: affine";
    grid = checked_grid(kernel, divide_up(op.channels(), kThreads));
    affine_kernel<<<grid, kThreads, 0, stream>>>(op, shares);
    check_launch(kernel);
  }

  kernel = "instance_norm_act_backward: gradient";
  grid = rows_grid(kernel, op.batch() * op.height(), op.width(), plan);
  gradient_kernel<T, kVector, Variant><<<grid, plan.block(), 0, stream>>>(op, plan, totals);
  check_launch(kernel);
}

// Calls function(T{}, vector, Variant{}) with the element type, the channels per vector and the
// variant of these arguments.
template <typename Arguments, typename Function>
void dispatch(const Arguments& op, const Function& function) {
  with_float_type(op.x.type, [&](auto x) {
    with_norm_variant(op, [&](auto variant) {
      if (vector_of(op) > 1) {
        function(x, std::integral_constant<int, kLoadBytes / sizeof(x)>(), variant);
      } else {
        function(x, std::integral_constant<int, 1>(), variant);
      }
    });
  });
}

}  // namespace

int64_t instance_norm_act_workspace(const InstanceNormAct& op) {
  return op.batch() * plan_of(op, vector_of(op)).chunks * 3 * op.channels();
}

int64_t instance_norm_act_backward_workspace(const InstanceNormActBackward& op) {
  return op.batch() * (plan_of(op, vector_of(op)).chunks + 2) * 2 * op.channels();
}

// Both expect at least one pixel and a workspace of the size that the functions above return.
void instance_norm_act(const InstanceNormAct& op, float* workspace, void* stream) {
  dispatch(op, [&](auto x, auto vector, auto variant) {
    forward<decltype(x), vector(), decltype(variant)>(op, workspace,
                                                      static_cast<cudaStream_t>(stream));
  });
}

void instance_norm_act_backward(const InstanceNormActBackward& op, float* workspace, void* stream) {
  dispatch(op, [&](auto x, auto vector, auto variant) {
    backward<decltype(x), vector(), decltype(variant)>(op, workspace,
                                                       static_cast<cudaStream_t>(stream));
  });
}

}  // namespace cuda
}  // namespace gioada
