// CUDA kernels: one thread per pixel column, with the algorithm of the CPU kernel.
//
// A block processes a strip, which is adjacent cells of one row of cells with all their pixels. Its
// threads process pixel rows from top to bottom and keep the interpolated logits and the gradients
// in registers, for all classes or for one group of classes at a time. The block then sums the
// gradients over the columns of each cell in shared memory, in a fixed order, and writes partial
// sums for the strip's input points. A second kernel sums losses and weights, a third combines and
// scales the gradient. No atomics: every run gives the same bits.

#include "cuda/gradient.h"
#include "cuda/reduce.h"
#include "upsample_cross_entropy.h"

namespace gioada {
namespace cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kPitch = kThreads + 1;  // of a row in shared memory: odd, to avoid bank conflicts
// Classes are processed in groups: one of kFewClasses if all fit, else groups of kManyClasses.
constexpr int kFewClasses = 16;
constexpr int kManyClasses = 24;  // 32 would spill registers on sm_80
constexpr int kTotalThreads = 1024;

CellStrips strips_of(const UpsampleCrossEntropy& op) {
  return cell_strips(op.batch(), op.rows, op.columns, kThreads);
}

// Floats of the gradient's partial sums: [strips, 2 (row above, below), cells + 1, classes].
int64_t partial_size(const UpsampleCrossEntropy& op, const CellStrips& strips) {
  return op.grad ? strips.total * 2 * (strips.cells + 1) * op.classes() : 0;
}

// One block per strip. If there are several groups of classes, each recomputes the log-sum-exp over
// all classes.
template <typename T, int kClasses, bool kGrad, bool kSmooth>
__global__ void __launch_bounds__(kThreads)
    strip_kernel(const UpsampleCrossEntropy op, const CellStrips strips,
                 float* __restrict__ partial,  // [strips, 2, cells + 1, classes]
                 float* __restrict__ sums) {   // [strips, 2] loss, weight
  __shared__ float tile[kGrad ? 2 * kClasses * kPitch : kThreads];
  __shared__ float fracs_x[kThreads];
  const int64_t strip = blockIdx.x;
  const StripCells at = cells_of(strips, strip, op.rows, op.columns);
  const int classes = static_cast<int>(op.classes());
  const bool several_groups = kClasses > kFewClasses && classes > kClasses;

  float loss_sum = 0.f, weight_sum = 0.f;
  float w_sum = 0.f;
  if (kSmooth) {
    for (int c = 0; c < classes; ++c) w_sum += op.weight_of(c);
  }
  if (kGrad) {
    const int64_t size = 2 * (strips.cells + 1) * op.classes();
    for (int64_t i = threadIdx.x; i < size; i += kThreads) partial[strip * size + i] = 0.f;
  }
  for (int64_t chunk = at.x_begin; chunk < at.x_end; chunk += kThreads) {
    const int64_t x = chunk + threadIdx.x;
    const bool inside = x < at.x_end;
    const int64_t cell = inside ? op.columns.cell_of(x) : at.first;
    const float frac_x = inside ? op.columns.frac_of(x, cell) : 0.f;
    const Corners<T> corners = corners_of<T>(op.logits, at.n, at.cell_row, cell);

    for (int group = 0; group < classes; group += kClasses) {
      float above[kClasses], step[kClasses], grad_above[kClasses], grad_below[kClasses];
#pragma unroll
      for (int c = 0; c < kClasses; ++c) {
        above[c] = step[c] = grad_above[c] = grad_below[c] = 0.f;
        if (group + c < classes) {
          corners.interpolate(group + c, frac_x, &above[c], &step[c]);
        } else {
          above[c] = -INFINITY;
        }
      }
      int64_t pixel = (at.n * op.height() + at.y_begin) * op.width() + x;
      for (int64_t y = at.y_begin; y < at.y_end; ++y, pixel += op.width()) {
        const float frac_y = op.rows.frac_of(y, at.cell_row);
        const int label = inside ? read_class(op, pixel) : kIgnored;
        float v = label >= 0 ? 1.f : 0.f;
        if (label >= 0 && op.pixel_weight) v = op.pixel_weight.as<const float>()[pixel];
        float weight = v;
        if (label >= 0 && op.weight) weight *= op.weight.as<const float>()[label];
        const float a = kSmooth ? (1.f - op.label_smoothing) * weight : weight;
        const float b = kSmooth ? op.uniform_weight() * v : 0.f;

        float z[kClasses];
        float largest = -INFINITY, picked = 0.f, weighted = 0.f;
#pragma unroll
        for (int c = 0; c < kClasses; ++c) {
          z[c] = above[c] + frac_y * step[c];
          largest = fmaxf(largest, z[c]);
          if (group + c == label) picked = z[c];
        }
        float sum = 0.f;
        if (several_groups) {
          const float origin = z[0];  // a common offset of the logits costs no digits
          for (int c = 0; c < classes; ++c) {
            float value, slope;
            corners.interpolate(c, frac_x, &value, &slope);
            value += frac_y * slope;
            if (c == label) picked = value;
            if (kSmooth) weighted += op.weight_of(c) * (value - origin);
            const float larger = fmaxf(largest, value);
            const bool member = c >= group && c < group + kClasses;  // added below
            sum = sum * __expf(largest - larger) + (member ? 0.f : __expf(value - larger));
            largest = larger;
          }
          if (kSmooth) weighted -= w_sum * (largest - origin);
        }
#pragma unroll
        for (int c = 0; c < kClasses; ++c) {
          if (kSmooth && !several_groups && c < classes) {
            weighted += op.weight_of(c) * (z[c] - largest);
          }
          z[c] = __expf(z[c] - largest);
          sum += z[c];
        }
        if (kGrad) {
          const float scaled = (kSmooth ? a + b * w_sum : a) / sum;
#pragma unroll
          for (int c = 0; c < kClasses; ++c) {
            const float w_c = kSmooth && group + c < classes ? op.weight_of(group + c) : 0.f;
            const float a_if_label = group + c == label ? a : 0.f;
            const float g = logit_gradient<kSmooth>(z[c], scaled, a_if_label, b, w_c);
            grad_above[c] += (1.f - frac_y) * g;
            grad_below[c] += frac_y * g;
          }
        }
        if (group == 0) {
          float loss = label == kOutOfRange ? NAN : 0.f;
          if (label >= 0) {
            loss = cross_entropy<kSmooth>(a, b, w_sum, logf(sum), picked - largest, weighted);
          }
          loss_sum += loss;
          weight_sum += weight;
          if (!kGrad && inside && op.reduction == Reduction::none) {
            op.loss.as<float>()[pixel] = loss;
          }
        }
      }
      if (!kGrad) break;  // one group is enough for the loss

      fracs_x[threadIdx.x] = frac_x;
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
        const float sum = gather_point(row, fracs_x, at, chunk, point, points, op.columns);
        partial[((strip * 2 + side) * (strips.cells + 1) + point) * op.classes() + group + c] +=
            sum;
      }
      __syncthreads();
    }
  }
  const float loss = block_reduce<kThreads>(loss_sum, tile, Sum());
  const float weight = block_reduce<kThreads>(weight_sum, tile, Sum());
  if (threadIdx.x == 0) {
    sums[2 * strip] = loss;
    sums[2 * strip + 1] = weight;
  }
}

// One block computes the loss and the factor of the gradient.
__global__ void __launch_bounds__(kTotalThreads)
    total_kernel(const UpsampleCrossEntropy op,
                 const float* __restrict__ sums,  // [strips, 2]
                 int64_t strips,
                 float* __restrict__ scale) {  // [1]
  __shared__ LossSums shared[kTotalThreads];
  const LossSums total = total_of<kTotalThreads>(sums, strips, shared);
  if (threadIdx.x == 0) {
    const double factor = op.scale(total.loss, total.weight);
    *op.loss.as<float>() = static_cast<float>(total.loss * factor);
    *scale = static_cast<float>(factor);
  }
}

template <typename T, int kClasses>
void launch_strips(const UpsampleCrossEntropy& op, const CellStrips& strips, float* partial,
                   float* sums, cudaStream_t stream) {
  const dim3 grid = checked_grid("upsample_cross_entropy: strips", strips.total);
  const bool smooth = op.label_smoothing > 0.f;
  const auto kernel = op.grad ? (smooth ? strip_kernel<T, kClasses, true, true>
                                        : strip_kernel<T, kClasses, true, false>)
                              : (smooth ? strip_kernel<T, kClasses, false, true>
                                        : strip_kernel<T, kClasses, false, false>);
  kernel<<<grid, kThreads, 0, stream>>>(op, strips, partial, sums);
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
  if (op.reduction == Reduction::none) return;
  total_kernel<<<1, kTotalThreads, 0, stream>>>(op, sums, strips.total, scale);
  check_launch("upsample_cross_entropy: total");
  if (!op.grad) return;
  launch_gradient("upsample_cross_entropy: gradient", strips, partial, scale, op.grad, TensorView{},
                  stream);
}

}  // namespace cuda
}  // namespace gioada
