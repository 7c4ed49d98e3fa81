// CUDA kernels: one thread per pixel column, with the algorithm of the CPU kernel.
//
// A strip is either several adjacent cells with up to kThreads pixel columns together, or kThreads
// columns of one wide cell. A block processes a strip in several rows of cells. After each row of
// cells, it sums the gradients over the columns of each cell in shared memory, in a fixed order,
// and writes partial sums for the cells' input points. A last kernel adds up the losses of the
// blocks, and combines and scales the gradient. Kinds that need a statistic of all errors have a
// pass before it. No atomics: every run gives the same bits.

#include <algorithm>
#include <limits>
#include <type_traits>

#include "cuda/bilinear.h"
#include "cuda/reduce.h"
#include "upsample_depth_loss.h"

namespace gioada {
namespace cuda {
namespace {

constexpr int kThreads = 128;
// Blocks of strip_kernel per multiprocessor: leaves 80 registers to a thread. Without it, the
// compiler takes fewer for some kernels, and spills.
constexpr int kMinBlocks = 6;
// Input points of a strip: each has one thread for the row above and one for the row below.
constexpr int kMaxPoints = kThreads / 2;
constexpr int64_t kMaxFinishBlocks = 1024;
// Upper bound, unless there are more strips: every block of finish_kernel re-reads the losses of
// all blocks of strip_kernel.
constexpr int64_t kMaxBlocks = 2048;

enum class Pass { statistic, map, loss, gradient };

// Splits the batch into strips and blocks.
struct Grid {
  int cells;       // per strip
  int pieces;      // strips per cell; 1 if a strip has more than one cell
  int strips;      // in a row of cells
  int cell_rows;   // rows of cells per image
  int64_t rows;    // rows of cells in the batch
  int block_rows;  // rows of cells per block
  int chunks;      // blocks per strip

  __host__ __device__ int blocks() const { return strips * chunks; }
};

Grid grid_of(const UpsampleDepthLoss& op) {
  const int64_t cells = op.columns.cells();
  const int64_t widest = widest_cell(op.columns);
  const int64_t fitting = std::max<int64_t>(kThreads / widest, 1);
  const int64_t strip_cells = std::min({fitting, cells, int64_t(kMaxPoints - 1)});
  const int64_t pieces = divide_up(widest, kThreads);
  const int64_t strips = divide_up(cells, strip_cells) * pieces;
  const int64_t rows = op.batch() * op.rows.cells();
  const int64_t block_rows = divide_up(rows * strips, kMaxBlocks);
  const int64_t chunks = divide_up(rows, block_rows);
  constexpr int64_t kMaxInt = std::numeric_limits<int>::max();
  if (std::max({op.width(), op.height(), op.in_width(), op.in_height(), block_rows}) > kMaxInt) {
    throw std::runtime_error(
        "upsample_depth_loss: height, width or rows of cells per block exceed 2147483647");
  }
  return {static_cast<int>(strip_cells),
          static_cast<int>(pieces),
          static_cast<int>(strips),
          static_cast<int>(op.rows.cells()),
          rows,
          static_cast<int>(block_rows),
          static_cast<int>(chunks)};
}

// Floats of the gradient's partial sums: [rows, strips, 2 (row above, below), cells + 1].
int64_t partial_size(const UpsampleDepthLoss& op, const Grid& grid) {
  return op.grad ? grid.rows * grid.strips * 2 * (grid.cells + 1) : 0;
}

// Interpolates depth between two input points, given their offsets.
__device__ __forceinline__ float depth_at(const UpsampleDepthLoss& op, int64_t left, int64_t right,
                                          float frac_x) {
  float value = 0.f;
  with_float_type(op.depth.type, [&](auto type) {
    const auto* depth = op.depth.as<const decltype(type)>();
    value = (1.f - frac_x) * to_float(depth[left]) + frac_x * to_float(depth[right]);
  });
  return value;
}

struct Log {
  __device__ float operator()(float x) const { return logf(x); }
};

// What the blocks have found in the statistic pass.
struct Statistics {
  float* largest;  // [blocks] largest |e|, for berHu
  double* errors;  // [blocks, 2] weighted sum of errors, sum of weights, for silog

  // Statistic of curve_of; every thread gets the result.
  template <bool kLog>
  __device__ __forceinline__ float total(int blocks, float* shared, LossSums* shared_sums) const {
    if (kLog) {
      const LossSums found = total_of<kThreads>(errors, blocks, shared_sums);
      return found.loss * loss_scale(Reduction::mean, found.loss, found.weight);
    }
    float error = 0.f;
    for (int i = threadIdx.x; i < blocks; i += kThreads) error = fmaxf(error, largest[i]);
    return block_reduce<kThreads>(error, shared, Max());
  }
};

// Grid (strips, chunks). Block b writes its elements of `statistics`; of the loss, if that is a
// map; or of `sums` and `partial`.
template <typename T, Pass kPass, bool kLog, bool kWeighted>
__global__ void __launch_bounds__(kThreads, kMinBlocks)
    strip_kernel(const UpsampleDepthLoss op, const Grid grid, const Statistics statistics,
                 float* __restrict__ partial,  // [rows, strips, 2, cells + 1]
                 double* __restrict__ sums) {  // [blocks, 2] loss, weight
  __shared__ float fracs_y[kThreads];          // of pixel rows: weight of the input row below
  __shared__ float fracs_x[kThreads];          // of pixel columns: weight of the right input point
  __shared__ float tile[2][kThreads];          // gradients of the row above, and below
  __shared__ LossSums reduced[kThreads];
  constexpr bool kGrad = kPass == Pass::gradient;
  const int thread = threadIdx.x;
  const int block = blockIdx.y * grid.strips + blockIdx.x;
  const int width = static_cast<int>(op.width()), height = static_cast<int>(op.height());
  const int in_width = static_cast<int>(op.in_width()),
            in_height = static_cast<int>(op.in_height());

  Curve curve = {};
  if (kPass != Pass::statistic) {
    float statistic = 0.f;
    if (op.needs_statistic()) statistic = statistics.total<kLog>(grid.blocks(), fracs_x, reduced);
    curve = curve_of(op, statistic);
  }

  const int strip = blockIdx.x, first = strip / grid.pieces * grid.cells;
  const int last = min(first + grid.cells, max(in_width - 1, 1));
  const auto column_of = [&](int cell) { return static_cast<int>(op.columns.begin_of(cell)); };
  const int x_begin = column_of(first) + strip % grid.pieces * kThreads;
  const int x_end = min(x_begin + kThreads, column_of(last));
  const bool inside = x_begin + thread < x_end;
  const int x = inside ? x_begin + thread : x_end - 1;
  const int cell = static_cast<int>(op.columns.cell_of(x));
  const float frac_x = op.columns.frac_of(x, cell);
  const int64_t left = cell * op.depth.strides[3];
  const int64_t right = in_width > 1 ? left + op.depth.strides[3] : left;
  // Half of the threads sum gradients for the input row above, half for the one below.
  const int side = thread / kMaxPoints, point = thread % kMaxPoints;
  // Columns [from, middle) lie left of this thread's point, [middle, to) right of it.
  int from = 0, middle = 0, to = 0;
  if (kGrad) {
    fracs_x[thread] = frac_x;
    const auto begin = [&](int of_cell) {
      const int column = column_of(min(max(of_cell, first), last));
      return max(min(column, x_end) - x_begin, 0);
    };
    from = begin(first + point - 1);
    middle = begin(first + point);
    to = begin(first + point + 1);
  }

  double loss_sum = 0., weight_sum = 0.;
  float error_max = 0.f;
  const int64_t first_row = blockIdx.y * static_cast<int64_t>(grid.block_rows);
  const int64_t last_row = min(first_row + grid.block_rows, grid.rows);
  int64_t n = first_row / grid.cell_rows;
  int cell_row = static_cast<int>(first_row % grid.cell_rows);
  int y_end = static_cast<int>(op.rows.begin_of(cell_row));
  for (int64_t row = first_row; row < last_row; ++row) {
    const int y_begin = y_end;
    y_end = static_cast<int>(op.rows.begin_of(cell_row + 1));
    const int64_t above_row = n * op.depth.strides[0] + cell_row * op.depth.strides[2];
    const int64_t below_row = in_height > 1 ? above_row + op.depth.strides[2] : above_row;
    const float above = depth_at(op, above_row + left, above_row + right, frac_x);
    const float below = depth_at(op, below_row + left, below_row + right, frac_x);
    float loss = 0.f, weight = 0.f, grad_above = 0.f, grad_below = 0.f;
    for (int top = y_begin; top < y_end; top += kThreads) {
      const int rows = min(y_end - top, kThreads);
      __syncthreads();
      if (thread < rows) fracs_y[thread] = op.rows.frac_of(top + thread, cell_row);
      __syncthreads();
      const int64_t pixel = (n * height + top) * width + x;
      const T* target = op.target.as<const T>() + pixel;
      const uint8_t* mask = op.valid.as<const uint8_t>() + pixel;
      const float* pixel_weight = op.pixel_weight.as<const float>() + pixel;
      float* map = op.loss.as<float>() + pixel;
#pragma unroll 4
      for (int r = 0; r < rows; ++r, target += width, mask += width, pixel_weight += width) {
        // Reads invalid pixels too, so that the loads overlap.
        const float depth = to_float(*target);
        const float given_weight = kWeighted ? *pixel_weight : 1.f;
        const bool valid = inside && (!op.valid || *mask != 0);
        const float frac_y = fracs_y[r];
        const float z = (1.f - frac_y) * above + frac_y * below;
        float e = 0.f;
        if (valid) e = kLog ? log_ratio(z, depth, Log()) : z - depth;
        if (kPass == Pass::statistic && !kLog) {
          error_max = fmaxf(error_max, fabsf(e));
          continue;
        }
        float f = e, slope = 0.f;
        if (kPass != Pass::statistic) {
          kLog ? log_error(e, z, curve, &f, &slope) : depth_error(e, curve, &f, &slope);
        }
        if (kLog && !valid) f = slope = 0.f;
        const float w = valid ? given_weight : 0.f;
        if (kWeighted) {
          f *= w;
          slope *= w;
        }
        if (kPass == Pass::map) {
          if (inside) map[r * static_cast<int64_t>(width)] = f;
          continue;
        }
        loss += f;
        weight += w;
        grad_above += (1.f - frac_y) * slope;
        grad_below += frac_y * slope;
      }
    }
    loss_sum += loss;
    weight_sum += weight;
    if (kGrad) {
      tile[0][thread] = grad_above;
      tile[1][thread] = grad_below;
      __syncthreads();
      if (point <= last - first) {
        float sum = 0.f;
        for (int i = from; i < middle; ++i) sum += fracs_x[i] * tile[side][i];
        for (int i = middle; i < to; ++i) sum += (1.f - fracs_x[i]) * tile[side][i];
        partial[((row * grid.strips + strip) * 2 + side) * (grid.cells + 1) + point] = sum;
      }
      __syncthreads();
    }
    if (++cell_row == grid.cell_rows) {
      cell_row = y_end = 0;
      ++n;
    }
  }

  if (kPass == Pass::map) return;
  if (kPass == Pass::statistic && !kLog) {
    error_max = block_reduce<kThreads>(error_max, fracs_x, Max());
    if (thread == 0) statistics.largest[block] = error_max;
  } else {
    const LossSums block_sums = {loss_sum, weight_sum};
    const LossSums total = block_reduce<kThreads>(block_sums, reduced, Sum());
    double* out = kPass == Pass::statistic ? statistics.errors : sums;
    if (thread == 0) {
      out[2 * block] = total.loss;
      out[2 * block + 1] = total.weight;
    }
  }
}

// Computes loss and gradient. A point gets partial sums from the strips to its top left, top right,
// bottom left and bottom right. Every block adds up all losses, in the same order: this is cheaper
// than a launch of one more kernel.
__global__ void __launch_bounds__(kThreads)
    finish_kernel(const UpsampleDepthLoss op, const Grid grid,
                  const float* __restrict__ partial,  // [rows, strips, 2, cells + 1]
                  const double* __restrict__ sums) {  // [blocks, 2]
  __shared__ LossSums shared[kThreads];
  const LossSums total = total_of<kThreads>(sums, grid.blocks(), shared);
  const double scale = loss_scale(op.reduction, total.loss, total.weight);
  if (blockIdx.x == 0 && threadIdx.x == 0)
    *op.loss.as<float>() = static_cast<float>(total.loss * scale);
  if (!op.grad) return;

  const int64_t elements = op.batch() * op.in_height() * op.in_width();
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x; i < elements;
       i += step) {
    const int x = static_cast<int>(i % op.in_width());
    const int64_t input_row = i / op.in_width();
    const int y = static_cast<int>(input_row % op.in_height());
    const int64_t n = input_row / op.in_height();
    const int first = max(x - 1, 0) / grid.cells * grid.pieces;
    const int last = min((x / grid.cells + 1) * grid.pieces, grid.strips);
    float sum = 0.f;
    for (int side = 1; side >= 0; --side) {
      const int cell_row = y - side;
      if (cell_row < 0 || cell_row >= grid.cell_rows) continue;
      for (int strip = first; strip < last; ++strip) {
        const int64_t at = (n * grid.cell_rows + cell_row) * grid.strips + strip;
        const int point = x - strip / grid.pieces * grid.cells;
        sum += partial[(at * 2 + side) * (grid.cells + 1) + point];
      }
    }
    op.grad.as<float>()[i] = sum * static_cast<float>(scale);
  }
}

template <typename T, bool kLog, bool kWeighted>
void launch_strips(const UpsampleDepthLoss& op, const Grid& grid, const Statistics& statistics,
                   float* partial, double* sums, cudaStream_t stream) {
  const dim3 blocks = checked_grid("upsample_depth_loss: strips", grid.strips, grid.chunks);
  if (op.needs_statistic()) {
    strip_kernel<T, Pass::statistic, kLog, kWeighted && kLog>
        <<<blocks, kThreads, 0, stream>>>(op, grid, statistics, partial, sums);
    check_launch("upsample_depth_loss: statistic");
  }
  if (op.reduction == Reduction::none) {
    strip_kernel<T, Pass::map, false, kWeighted>
        <<<blocks, kThreads, 0, stream>>>(op, grid, statistics, partial, sums);
  } else if (op.grad) {
    strip_kernel<T, Pass::gradient, kLog, kWeighted>
        <<<blocks, kThreads, 0, stream>>>(op, grid, statistics, partial, sums);
  } else {
    strip_kernel<T, Pass::loss, kLog, kWeighted>
        <<<blocks, kThreads, 0, stream>>>(op, grid, statistics, partial, sums);
  }
  check_launch("upsample_depth_loss: strips");
}

}  // namespace

int64_t upsample_depth_loss_workspace(const UpsampleDepthLoss& op) {
  const Grid grid = grid_of(op);
  constexpr int64_t kDouble = sizeof(double) / sizeof(float);
  const int64_t statistics = op.logarithmic() ? 2 * kDouble : 1;
  return (2 * kDouble + statistics) * grid.blocks() + partial_size(op, grid);
}

// Expects at least one pixel; `workspace` has upsample_depth_loss_workspace(op) floats, aligned for
// doubles.
void upsample_depth_loss(const UpsampleDepthLoss& op, float* workspace, void* stream_) {
  const cudaStream_t stream = static_cast<cudaStream_t>(stream_);
  const Grid grid = grid_of(op);
  double* sums = reinterpret_cast<double*>(workspace);
  double* errors = sums + 2 * grid.blocks();
  const Statistics statistics = {reinterpret_cast<float*>(errors), errors};  // one of both
  float* partial = op.logarithmic() ? reinterpret_cast<float*>(errors + 2 * grid.blocks())
                                    : statistics.largest + grid.blocks();
  with_float_type(op.target.type, [&](auto target) {
    using T = decltype(target);
    const auto launch = [&](auto logarithmic, auto weighted) {
      launch_strips<T, logarithmic, weighted>(op, grid, statistics, partial, sums, stream);
    };
    constexpr std::true_type yes;
    constexpr std::false_type no;
    if (op.logarithmic()) {
      op.pixel_weight ? launch(yes, yes) : launch(yes, no);
    } else {
      op.pixel_weight ? launch(no, yes) : launch(no, no);
    }
  });
  if (op.reduction == Reduction::none) return;
  int64_t blocks = 1;
  if (op.grad) {
    blocks = divide_up(op.batch() * op.in_height() * op.in_width(), kThreads);
    if (blocks > kMaxFinishBlocks) blocks = kMaxFinishBlocks;
  }
  const dim3 finish_grid = checked_grid("upsample_depth_loss: finish", blocks);
  finish_kernel<<<finish_grid, kThreads, 0, stream>>>(op, grid, partial, sums);
  check_launch("upsample_depth_loss: finish");
}

}  // namespace cuda
}  // namespace gioada
