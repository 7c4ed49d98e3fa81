// CUDA kernels: one thread per pixel column. It processes pixel rows from top to bottom and keeps
// the interpolated logits in registers, for all classes or for one group of classes at a time.
//
// The result is channels-last. A warp rearranges its pixels in shared memory, so that it writes the
// result, and reads the gradient, in long runs.
//
// Backward: a block processes a strip, which is adjacent cells of one row of cells with all their
// pixels. Its threads recompute the probabilities and keep the gradients in registers. The block
// then sums these over the columns of each cell in shared memory, in a fixed order, and writes
// partial sums for the strip's input points. A second kernel combines them. No atomics: every run
// gives the same bits.

#include "cuda/gradient.h"
#include "semantic_depth_concat.h"

namespace gioada {
namespace cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarp = 32;
constexpr int kRows = 8;              // pixel rows per block in the forward
constexpr int kPitch = kThreads + 1;  // of a row in shared memory: odd, to avoid bank conflicts
// Classes are processed in groups: one of kFewClasses if all fit, else groups of kManyClasses.
constexpr int kFewClasses = 16;
constexpr int kManyClasses = 24;

// Calls body(pixel, channel) for all elements [kWarp, channels] of a warp. Adjacent lanes get
// elements that are adjacent in memory. Avoids a division per element.
template <typename Body>
__device__ __forceinline__ void for_each_element(int channels, const Body& body) {
  const int lane = threadIdx.x % kWarp;
  const int pixel_step = kWarp / channels, channel_step = kWarp % channels;
  int pixel = lane / channels, channel = lane % channels;
  for (int i = 0; i < channels; ++i) {
    body(pixel, channel);
    pixel += pixel_step;
    channel += channel_step;
    if (channel >= channels) {
      channel -= channels;
      ++pixel;
    }
  }
}

template <typename T, int kClasses>
__global__ void __launch_bounds__(kThreads) forward_kernel(const SemanticDepthConcat op) {
  // [kWarp, channels of a group], padded to an odd number of channels to avoid bank conflicts.
  __shared__ float tiles[kThreads / kWarp][kWarp * (kClasses + 1)];
  constexpr bool kGroups = kClasses > kFewClasses;  // there may be more than one group
  const int64_t blocks_x = (op.width() + kThreads - 1) / kThreads;
  const int64_t blocks_y = (op.height() + kRows - 1) / kRows;
  const int64_t n = blockIdx.x / (blocks_x * blocks_y);
  const int64_t y_begin = blockIdx.x / blocks_x % blocks_y * kRows;
  const int64_t y_end = min(y_begin + kRows, op.height());
  const int lane = threadIdx.x % kWarp;
  const int64_t warp_x = blockIdx.x % blocks_x * kThreads + threadIdx.x - lane;
  if (warp_x >= op.width()) return;
  const int pixels = static_cast<int>(min(static_cast<int64_t>(kWarp), op.width() - warp_x));
  const int64_t x = min(warp_x + lane, op.width() - 1);
  const int64_t cell_x = op.columns.cell_of(x);
  const float frac_x = op.columns.frac_of(x, cell_x);
  const int classes = static_cast<int>(op.classes());
  const int64_t channels = op.channels();
  float* tile = tiles[threadIdx.x / kWarp];

  for (int group = 0; group < classes; group += kClasses) {
    const bool with_depth = op.depth && group + kClasses >= classes;
    const int members = min(kClasses, classes - group);
    const int group_channels = members + with_depth;
    const int pitch = group_channels | 1;
    Corners<T> corners;
    float above[kClasses], step[kClasses], depth_above = 0.f, depth_step = 0.f;
    int64_t cell_y = 0, cell_end = 0;
    for (int64_t y = y_begin; y < y_end; ++y) {
      if (y == y_begin || y >= cell_end) {
        cell_y = op.rows.cell_of(y);
        cell_end = op.rows.begin_of(cell_y + 1);
        corners = corners_of<T>(op.logits, n, cell_y, cell_x);
#pragma unroll
        for (int c = 0; c < kClasses; ++c) {
          above[c] = -INFINITY;
          step[c] = 0.f;
          if (c < members) corners.interpolate(group + c, frac_x, &above[c], &step[c]);
        }
        if (with_depth) {
          corners_of<T>(op.depth, n, cell_y, cell_x)
              .interpolate(0, frac_x, &depth_above, &depth_step);
        }
      }
      const float frac_y = op.rows.frac_of(y, cell_y);
      float z[kClasses];
      float largest = -INFINITY;
#pragma unroll
      for (int c = 0; c < kClasses; ++c) {
        z[c] = above[c] + frac_y * step[c];
        largest = fmaxf(largest, z[c]);
      }
      float sum = 0.f;
      if (kGroups && classes > kClasses) {
        for (int c = 0; c < classes; ++c) {
          if (c == group) c += members;  // added below
          if (c >= classes) break;
          float value, slope;
          corners.interpolate(c, frac_x, &value, &slope);
          value += frac_y * slope;
          const float larger = fmaxf(largest, value);
          sum = sum * __expf(largest - larger) + __expf(value - larger);
          largest = larger;
        }
      }
#pragma unroll
      for (int c = 0; c < kClasses; ++c) {
        z[c] = __expf(z[c] - largest);
        sum += z[c];
      }
      const float scale = 1.f / sum;
      __syncwarp();
#pragma unroll
      for (int c = 0; c < kClasses; ++c) {
        if (c < members) tile[lane * pitch + c] = z[c] * scale;
      }
      if (with_depth) tile[lane * pitch + members] = depth_above + frac_y * depth_step;
      __syncwarp();
      T* out = op.out.as<T>() + ((n * op.height() + y) * op.width() + warp_x) * channels;
      for_each_element(group_channels, [&](int pixel, int c) {
        if (pixel < pixels) convert(tile[pixel * pitch + c], out + pixel * channels + group + c);
      });
    }
  }
}

// One block per strip. If there are several groups of classes, each recomputes the sums over all
// classes.
template <typename T, int kClasses>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(const SemanticDepthConcatBackward op, const CellStrips strips,
                    float* __restrict__ partial) {  // [strips, 2, cells + 1, channels]
  constexpr int kChannels = kClasses + 1;           // channels of a group, with depth
  static_assert(kChannels % 2 == 1, "an even number of channels has bank conflicts");
  static_assert(kThreads * kChannels <= 2 * kChannels * kPitch, "the tile is too small for pixels");
  __shared__ float tile[2 * kChannels * kPitch];  // first incoming, then outgoing gradients
  __shared__ float fracs_x[kThreads];
  constexpr bool kGroups = kClasses > kFewClasses;  // there may be more than one group
  const int64_t strip = blockIdx.x;
  const StripCells at = cells_of(strips, strip, op.rows, op.columns);
  const int64_t* gs = op.grad.strides;
  const T* grad = op.grad.as<const T>() + at.n * gs[0];
  const bool planar = gs[3] < gs[1];  // in memory, pixels are closer to each other than channels
  const bool wants_logits(op.grad_logits), wants_depth(op.grad_depth);
  const int classes = wants_logits ? static_cast<int>(op.classes()) : 0;
  const int channels = classes + wants_depth;
  const int lane = threadIdx.x % kWarp;
  float* pixels = tile + (threadIdx.x - lane) * kChannels;  // this warp's [kWarp, kChannels]

  const int64_t size = 2 * (strips.cells + 1) * channels;
  for (int64_t i = threadIdx.x; i < size; i += kThreads) partial[strip * size + i] = 0.f;
  for (int64_t chunk = at.x_begin; chunk < at.x_end; chunk += kThreads) {
    const int64_t x = chunk + threadIdx.x, warp_x = x - lane;
    const bool inside = x < at.x_end;
    const int inside_warp = static_cast<int>(min(int64_t(kWarp), at.x_end - warp_x));
    const int64_t cell = inside ? op.columns.cell_of(x) : at.first;
    const float frac_x = inside ? op.columns.frac_of(x, cell) : 0.f;
    const Corners<T> corners = corners_of<T>(op.logits, at.n, at.cell_row, cell);

    for (int group = 0; group == 0 || group < classes; group += kClasses) {
      const int members = min(kClasses, classes - group);
      const bool with_depth = wants_depth && group + kClasses >= classes;
      const int group_channels = members + with_depth;
      float above[kClasses], step[kClasses], grad_above[kChannels], grad_below[kChannels];
#pragma unroll
      for (int c = 0; c < kChannels; ++c) grad_above[c] = grad_below[c] = 0.f;
#pragma unroll
      for (int c = 0; c < kClasses; ++c) {
        above[c] = -INFINITY;
        step[c] = 0.f;
        if (c < members) corners.interpolate(group + c, frac_x, &above[c], &step[c]);
      }
      for (int64_t y = at.y_begin; y < at.y_end; ++y) {
        const float frac_y = op.rows.frac_of(y, at.cell_row);
        const T* row = grad + y * gs[2] + warp_x * gs[3];
        const auto copy = [&](int pixel, int c) {
          const int64_t channel = c < members ? group + c : op.classes();
          pixels[pixel * kChannels + (c < members ? c : kClasses)] =
              pixel < inside_warp ? to_float(row[pixel * gs[3] + channel * gs[1]]) : 0.f;
        };
        __syncwarp();
        if (planar) {
          for (int c = 0; c < group_channels; ++c) copy(lane, c);
        } else {
          for_each_element(group_channels, copy);
        }
        __syncwarp();
        const float* g = pixels + lane * kChannels;
        if (members > 0) {
          float z[kClasses];
          float largest = -INFINITY;
#pragma unroll
          for (int c = 0; c < kClasses; ++c) {
            z[c] = above[c] + frac_y * step[c];
            largest = fmaxf(largest, z[c]);
          }
          float sum = 0.f, mean = 0.f;
          if (kGroups && classes > kClasses) {
            for (int c = 0; c < classes; ++c) {
              if (c == group) c += members;  // added below
              if (c >= classes) break;
              float value, slope;
              corners.interpolate(c, frac_x, &value, &slope);
              value += frac_y * slope;
              const float larger = fmaxf(largest, value);
              const float e = __expf(value - larger), shrink = __expf(largest - larger);
              const float other = inside ? to_float(row[lane * gs[3] + c * gs[1]]) : 0.f;
              sum = sum * shrink + e;
              mean = mean * shrink + e * other;
              largest = larger;
            }
          }
#pragma unroll
          for (int c = 0; c < kClasses; ++c) {
            z[c] = __expf(z[c] - largest);
            sum += z[c];
            if (c < members) mean += z[c] * g[c];
          }
          const float scale = 1.f / sum;
          mean *= scale;
#pragma unroll
          for (int c = 0; c < kClasses; ++c) {
            const float d = c < members ? softmax_gradient(z[c] * scale, g[c], mean) : 0.f;
            grad_above[c] += (1.f - frac_y) * d;
            grad_below[c] += frac_y * d;
          }
        }
        if (with_depth) {
          grad_above[kClasses] += (1.f - frac_y) * g[kClasses];
          grad_below[kClasses] += frac_y * g[kClasses];
        }
      }

      __syncthreads();
      fracs_x[threadIdx.x] = frac_x;
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        tile[c * kPitch + threadIdx.x] = grad_above[c];
        tile[(kChannels + c) * kPitch + threadIdx.x] = grad_below[c];
      }
      __syncthreads();
      const int points = static_cast<int>(at.last - at.first) + 1;
      for (int i = threadIdx.x; i < 2 * points * group_channels; i += kThreads) {
        const int c = i % group_channels, point = i / group_channels % points;
        const int side = i / group_channels / points;
        const float* grads = tile + (side * kChannels + (c < members ? c : kClasses)) * kPitch;
        const float sum = gather_point(grads, fracs_x, at, chunk, point, points, op.columns);
        partial[((strip * 2 + side) * (strips.cells + 1) + point) * channels + group + c] += sum;
      }
      __syncthreads();
    }
  }
}

template <typename T>
void launch(const SemanticDepthConcat& op, cudaStream_t stream) {
  const int64_t blocks =
      op.batch() * divide_up(op.height(), kRows) * divide_up(op.width(), kThreads);
  const dim3 grid = checked_grid("semantic_depth_concat", blocks);
  if (op.classes() <= kFewClasses) {
    forward_kernel<T, kFewClasses><<<grid, kThreads, 0, stream>>>(op);
  } else {
    forward_kernel<T, kManyClasses><<<grid, kThreads, 0, stream>>>(op);
  }
  check_launch("semantic_depth_concat");
}

template <typename T>
void launch(const SemanticDepthConcatBackward& op, const CellStrips& strips, float* partial,
            cudaStream_t stream) {
  const dim3 grid = checked_grid("semantic_depth_concat_backward: strips", strips.total);
  if (op.classes() <= kFewClasses) {
    backward_kernel<T, kFewClasses><<<grid, kThreads, 0, stream>>>(op, strips, partial);
  } else {
    backward_kernel<T, kManyClasses><<<grid, kThreads, 0, stream>>>(op, strips, partial);
  }
  check_launch("semantic_depth_concat_backward: strips");
}

}  // namespace

int64_t semantic_depth_concat_workspace(const SemanticDepthConcat&) { return 0; }

// Expects at least one pixel.
void semantic_depth_concat(const SemanticDepthConcat& op, float*, void* stream_) {
  const cudaStream_t stream = static_cast<cudaStream_t>(stream_);
  with_float_type(op.logits.type, [&](auto logit) { launch<decltype(logit)>(op, stream); });
}

int64_t semantic_depth_concat_backward_workspace(const SemanticDepthConcatBackward& op) {
  const CellStrips strips = cell_strips(op.batch(), op.rows, op.columns, kThreads);
  return strips.total * 2 * (strips.cells + 1) * channels_of(op.grad_logits, op.grad_depth);
}

// Expects at least one pixel; `workspace` has semantic_depth_concat_backward_workspace(op) floats.
void semantic_depth_concat_backward(const SemanticDepthConcatBackward& op, float* workspace,
                                    void* stream_) {
  const cudaStream_t stream = static_cast<cudaStream_t>(stream_);
  const CellStrips strips = cell_strips(op.batch(), op.rows, op.columns, kThreads);
  with_float_type(op.logits.type,
                  [&](auto logit) { launch<decltype(logit)>(op, strips, workspace, stream); });
  launch_gradient("semantic_depth_concat_backward: gradient", strips, workspace, nullptr,
                  op.grad_logits, op.grad_depth, stream);
}

}  // namespace cuda
}  // namespace gioada
