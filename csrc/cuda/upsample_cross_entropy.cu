// CUDA kernels: the walk of the CPU kernel, one thread for each pixel column.
//
// A block owns a strip: some cells of one row of cells, with all of their pixels. Its threads walk
// down the pixel rows with the interpolated logits and the gradients of all classes in registers.
// Then gradients are summed over the columns of each cell in shared memory, in a fixed order, and
// leave as partial sums for the strip's input points. A second kernel sums losses and weights, a
// third completes and scales the gradient. No atomics: the same bits every run.

#include "cuda/bilinear.h"
#include "upsample_cross_entropy.h"

namespace gioada {
namespace cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kPitch = kThreads + 1;  // of a shared row: neighbouring classes in different banks
constexpr int kFewClasses = 16;       // of a group: up to so many at once,
constexpr int kManyClasses = 24;      // or so many a group; 32 would spill on sm_80
constexpr int kTotalThreads = 1024;

CellStrips strips_of(const UpsampleCrossEntropy& op) {
  return cell_strips(op.batch(), op.in_height(), op.in_width(), op.width(), kThreads);
}

// Floats of the gradient's partial sums: [strips, 2 (row above, below), cells + 1, classes].
int64_t partial_size(const UpsampleCrossEntropy& op, const CellStrips& strips) {
  return op.grad ? strips.total * 2 * (strips.cells + 1) * op.classes() : 0;
}

__device__ __forceinline__ float block_sum(float value, float* shared) {
  __syncthreads();
  shared[threadIdx.x] = value;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
  }
  __syncthreads();
  return shared[0];
}

// One block per strip. Classes are taken kClasses at a time; where there are more, their common
// log-sum-exp is computed again for each group.
template <typename T, int kClasses, bool kGrad>
__global__ void __launch_bounds__(kThreads)
    strip_kernel(const UpsampleCrossEntropy op, const CellStrips strips,
                 float* __restrict__ partial,  // [strips, 2, cells + 1, classes]
                 float* __restrict__ sums) {   // [strips, 2] loss, weight
  __shared__ float tile[kGrad ? 2 * kClasses * kPitch : kThreads];
  __shared__ float uppers[kThreads];
  constexpr bool kGroups = kClasses > kFewClasses;  // may need more than one
  const int64_t strip = blockIdx.x;
  const StripCells at =
      cells_of(strips, strip, op.in_height(), op.in_width(), op.height(), op.width());
  const int classes = static_cast<int>(op.classes());

  float loss_sum = 0.f, weight_sum = 0.f;
  if (kGrad) {
    const int64_t size = 2 * (strips.cells + 1) * op.classes();
    for (int64_t i = threadIdx.x; i < size; i += kThreads) partial[strip * size + i] = 0.f;
  }
  for (int64_t chunk = at.x_begin; chunk < at.x_end; chunk += kThreads) {
    const int64_t x = chunk + threadIdx.x;
    const bool inside = x < at.x_end;
    const int64_t cell = inside ? cell_of(x, op.in_width(), op.width()) : at.first;
    const float x_upper = inside ? upper_weight(x, cell, op.in_width(), op.width()) : 0.f;
    const Corners<T> corners = corners_of<T>(op.logits, at.n, at.cell_row, cell);

    for (int group = 0; group < classes; group += kClasses) {
      float above[kClasses], step[kClasses], grad_above[kClasses], grad_below[kClasses];
#pragma unroll
      for (int c = 0; c < kClasses; ++c) {
        above[c] = step[c] = grad_above[c] = grad_below[c] = 0.f;
        if (group + c < classes) {
          corners.interpolate(group + c, x_upper, &above[c], &step[c]);
        } else {
          above[c] = -INFINITY;
        }
      }
      for (int64_t y = at.y_begin; y < at.y_end; ++y) {
        const float y_upper = upper_weight(y, at.cell_row, op.in_height(), op.height());
        const int label =
            inside ? read_class(op, (at.n * op.height() + y) * op.width() + x) : kIgnored;
        float weight = label >= 0 ? 1.f : 0.f;
        if (label >= 0 && op.weight) weight = op.weight.as<float>()[label];

        float z[kClasses];
        float largest = -INFINITY, picked = 0.f;
#pragma unroll
        for (int c = 0; c < kClasses; ++c) {
          z[c] = above[c] + y_upper * step[c];
          largest = fmaxf(largest, z[c]);
          if (group + c == label) picked = z[c];
        }
        float sum = 0.f;
        if (kGroups && classes > kClasses) {
          for (int c = 0; c < classes; ++c) {
            float value, slope;
            corners.interpolate(c, x_upper, &value, &slope);
            value += y_upper * slope;
            if (c == label) picked = value;
            const float larger = fmaxf(largest, value);
            // Members of this group are added below.
            const bool member = c >= group && c < group + kClasses;
            sum = sum * __expf(largest - larger) + (member ? 0.f : __expf(value - larger));
            largest = larger;
          }
        }
#pragma unroll
        for (int c = 0; c < kClasses; ++c) {
          z[c] = __expf(z[c] - largest);
          sum += z[c];
        }
        if (kGrad) {
          const float scaled = weight / sum;
#pragma unroll
          for (int c = 0; c < kClasses; ++c) {
            const float g = logit_gradient(z[c], scaled, group + c == label ? weight : 0.f);
            grad_above[c] += (1.f - y_upper) * g;
            grad_below[c] += y_upper * g;
          }
        }
        if (group == 0 && label == kOutOfRange) loss_sum = NAN;
        if (group == 0 && label >= 0) {
          loss_sum += weight * (logf(sum) + (largest - picked));
          weight_sum += weight;
        }
      }
      if (!kGrad) break;  // one group is enough for the loss

      __syncthreads();
      uppers[threadIdx.x] = x_upper;
#pragma unroll
      for (int c = 0; c < kClasses; ++c) {
        tile[c * kPitch + threadIdx.x] = grad_above[c];
        tile[(kClasses + c) * kPitch + threadIdx.x] = grad_below[c];
      }
      __syncthreads();
      const int points = static_cast<int>(at.last - at.first) + 1;
      for (int i = threadIdx.x; i < 2 * points * kClasses; i += kThreads) {
        const int c = i % kClasses, point = i / kClasses % points, side = i / kClasses / points;
        if (group + c >= classes) continue;
        const float* row = tile + (side * kClasses + c) * kPitch;
        const int64_t from =
            max(cell_begin(at.first + point - 1, op.in_width(), op.width()), chunk);
        const int64_t middle = cell_begin(at.first + point, op.in_width(), op.width());
        const int64_t to = point < points - 1
                               ? cell_begin(at.first + point + 1, op.in_width(), op.width())
                               : middle;
        const int64_t stop = min(to, min(at.x_end, chunk + kThreads));
        float sum = 0.f;
        for (int64_t px = max(from, at.x_begin); px < stop; ++px) {
          const float upper = uppers[px - chunk];
          sum += row[px - chunk] * (px < middle ? upper : 1.f - upper);
        }
        partial[((strip * 2 + side) * (strips.cells + 1) + point) * op.classes() + group + c] +=
            sum;
      }
      __syncthreads();
    }
  }
  const float loss = block_sum(loss_sum, tile);
  const float weight = block_sum(weight_sum, tile);
  if (threadIdx.x == 0) {
    sums[2 * strip] = loss;
    sums[2 * strip + 1] = weight;
  }
}

// One block: loss, and the factor of the gradient.
__global__ void __launch_bounds__(kTotalThreads)
    total_kernel(const float* __restrict__ sums,  // [strips, 2]
                 int64_t strips,
                 float* __restrict__ loss,     // [1]
                 float* __restrict__ scale) {  // [1]
  __shared__ double losses[kTotalThreads], weights[kTotalThreads];
  double loss_sum = 0., weight_sum = 0.;
  for (int64_t i = threadIdx.x; i < strips; i += kTotalThreads) {
    loss_sum += sums[2 * i];
    weight_sum += sums[2 * i + 1];
  }
  losses[threadIdx.x] = loss_sum;
  weights[threadIdx.x] = weight_sum;
  for (int half = kTotalThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) {
      losses[threadIdx.x] += losses[threadIdx.x + half];
      weights[threadIdx.x] += weights[threadIdx.x + half];
    }
  }
  if (threadIdx.x == 0) {
    const double factor = weights[0] > 0. ? 1. / weights[0] : 0.;
    *loss = static_cast<float>(losses[0] * factor);
    *scale = static_cast<float>(factor);
  }
}

// One thread per element of the gradient: a point has up to two strips above and two below.
__global__ void __launch_bounds__(kThreads)
    gradient_kernel(const UpsampleCrossEntropy op, const CellStrips strips,
                    const float* __restrict__ partial,  // [strips, 2, cells + 1, classes]
                    const float* __restrict__ scale) {  // [1]
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= op.batch() * op.in_height() * op.in_width() * op.classes()) return;
  const int64_t c = i % op.classes();
  const int64_t x = i / op.classes() % op.in_width();
  const int64_t y = i / (op.classes() * op.in_width()) % op.in_height();
  const int64_t n = i / (op.classes() * op.in_width() * op.in_height());
  float sum = 0.f;
  for (int side = 1; side >= 0; --side) {
    const int64_t cell_row = y - side;
    if (cell_row < 0 || cell_row >= strips.cell_rows) continue;
    for (int64_t s = max((x - 1) / strips.cells, int64_t(0)); s <= x / strips.cells; ++s) {
      if (s >= strips.in_row) continue;
      const int64_t strip = (n * strips.cell_rows + cell_row) * strips.in_row + s;
      const int64_t point = x - s * strips.cells;
      sum += partial[((strip * 2 + side) * (strips.cells + 1) + point) * op.classes() + c];
    }
  }
  op.grad.as<float>()[i] = sum * *scale;
}

template <typename T, int kClasses>
void launch_strips(const UpsampleCrossEntropy& op, const CellStrips& strips, float* partial,
                   float* sums, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(strips.total));
  if (op.grad) {
    strip_kernel<T, kClasses, true><<<grid, kThreads, 0, stream>>>(op, strips, partial, sums);
  } else {
    strip_kernel<T, kClasses, false><<<grid, kThreads, 0, stream>>>(op, strips, partial, sums);
  }
  check_launch("upsample_cross_entropy: strips");
}

template <typename T>
void launch_strips(const UpsampleCrossEntropy& op, const CellStrips& strips, float* partial,
                   float* sums, cudaStream_t stream) {
  if (op.classes() <= kFewClasses) {
    launch_strips<T, kFewClasses>(op, strips, partial, sums, stream);
  } else {
    launch_strips<T, kManyClasses>(op, strips, partial, sums, stream);
  }
}

}  // namespace

int64_t upsample_cross_entropy_workspace(const UpsampleCrossEntropy& op) {
  const CellStrips strips = strips_of(op);
  return partial_size(op, strips) + 2 * strips.total + 1;
}

// Expects at least one pixel; `workspace` has upsample_cross_entropy_workspace(op) floats.
void upsample_cross_entropy(const UpsampleCrossEntropy& op, float* workspace, void* stream_) {
  const cudaStream_t stream = static_cast<cudaStream_t>(stream_);
  const CellStrips strips = strips_of(op);
  float* partial = workspace;
  float* sums = partial + partial_size(op, strips);
  float* scale = sums + 2 * strips.total;
  with_float_type(op.logits.type, [&](auto logit) {
    launch_strips<decltype(logit)>(op, strips, partial, sums, stream);
  });
  total_kernel<<<1, kTotalThreads, 0, stream>>>(sums, strips.total, op.loss.as<float>(), scale);
  check_launch("upsample_cross_entropy: total");
  if (!op.grad) return;
  const int64_t elements = op.batch() * op.in_height() * op.in_width() * op.classes();
  gradient_kernel<<<static_cast<unsigned>(divide_up(elements, kThreads)), kThreads, 0, stream>>>(
      op, strips, partial, scale);
  check_launch("upsample_cross_entropy: gradient");
}

}  // namespace cuda
}  // namespace gioada
