// CUDA kernel: one thread per pixel column predicts several pixel rows of a cell at once.
//
// A thread loops over the classes and keeps the best class of each row in registers; it reads four
// logits per class for up to kRowsAtOnce rows. Counts accumulate in shared memory, with one
// addition for a run of pixels in a column that have the same label and prediction. Persistent
// blocks loop over tiles, so that few of them flush to global memory. Counts are integers, so the
// order of additions does not matter.

#include <algorithm>
#include <cmath>

#include "cuda/bilinear.h"
#include "upsample_confusion_matrix.h"

namespace gioada {
namespace cuda {
namespace {

constexpr int kThreads = 128;
constexpr int64_t kMaxBlocks = 1024;  // 7 per multiprocessor of an H100
constexpr int kRowsAtOnce = 8;
// Adjacent threads often see the same label and prediction. They count in different histogram
// copies, because atomic additions to one address are serialised.
constexpr int kMaxCopies = 8;
constexpr int64_t kMaxSharedOfCopies = 16 << 10;  // bytes, if there are several copies
constexpr int64_t kMaxShared = 48 << 10;          // bytes, for a single copy

// Splits the images into tiles: kThreads pixel columns of one row of cells.
struct Tiles {
  int64_t in_row;     // tiles in a row of cells
  int64_t cell_rows;  // per image
  int64_t total;      // tiles in the batch
};

// Adds `pixels` to an element of the matrix, which is -1 for pixels that do not count.
__device__ __forceinline__ void add(const UpsampleConfusionMatrix& op,
                                    unsigned* shared,  // [classes, classes, copies]
                                    int copies, int element, int pixels) {
  if (pixels == 0 || element < 0) return;
  if (copies > 0) {
    atomicAdd(shared + element * copies + threadIdx.x % copies, static_cast<unsigned>(pixels));
  } else {
    atomicAdd(op.counts.as<unsigned long long>() + element,
              static_cast<unsigned long long>(pixels));
  }
}

// Predicts and counts up to kRows pixels of one column within a cell, from row y on. `pixel` is the
// flat index of the first one.
template <typename T, int kRows>
__device__ __forceinline__ void count_column(const UpsampleConfusionMatrix& op,
                                             const Corners<T>& corners, float frac_x, int64_t cell,
                                             int64_t y, int64_t y_end, int64_t pixel,
                                             unsigned* shared, int copies) {
  const int classes = static_cast<int>(op.classes());
  float frac_y[kRows], best[kRows];
  int arg[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    frac_y[r] = op.rows.frac_of(y + r, cell);
    best[r] = -INFINITY;
    arg[r] = 0;
  }
  const T* corner = corners.above;
  for (int c = 0; c < classes; ++c, corner += corners.class_stride) {
    float above, below;
    at_column(corner, corners.right, corners.down, frac_x, &above, &below);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float z = lerp(above, below, frac_y[r]);
      if (exceeds(z, best[r])) {
        best[r] = z;
        arg[r] = c;
      }
    }
  }
  int last = -1, run = 0;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (y + r >= y_end) break;
    const int label = read_class(op, pixel + r * op.width());
    const int element = label >= 0 ? label * classes + arg[r] : -1;
    if (element != last) {
      add(op, shared, copies, last, run);
      last = element;
      run = 0;
    }
    ++run;
  }
  add(op, shared, copies, last, run);
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    count_kernel(const UpsampleConfusionMatrix op, const Tiles tiles, int copies) {
  extern __shared__ unsigned shared[];  // [classes, classes, copies]; empty without copies
  const int matrix = static_cast<int>(op.classes() * op.classes());
  for (int i = threadIdx.x; i < matrix * copies; i += kThreads) shared[i] = 0;
  __syncthreads();
  for (int64_t tile = blockIdx.x; tile < tiles.total; tile += gridDim.x) {
    const int64_t x = tile % tiles.in_row * kThreads + threadIdx.x;
    if (x >= op.width()) continue;
    const int64_t row = tile / tiles.in_row % tiles.cell_rows;
    const int64_t n = tile / tiles.in_row / tiles.cell_rows;
    const int64_t column = op.columns.cell_of(x);
    const float frac_x = op.columns.frac_of(x, column);
    const Corners<T> corners = corners_of<T>(op.logits, n, row, column);
    const int64_t y_end = op.rows.begin_of(row + 1);
    for (int64_t y = op.rows.begin_of(row); y < y_end;) {
      const int64_t pixel = (n * op.height() + y) * op.width() + x;
      if (y_end - y > 2) {
        count_column<T, kRowsAtOnce>(op, corners, frac_x, row, y, y_end, pixel, shared, copies);
        y += kRowsAtOnce;
      } else {
        count_column<T, 2>(op, corners, frac_x, row, y, y_end, pixel, shared, copies);
        y += 2;
      }
    }
  }
  if (copies == 0) return;
  __syncthreads();
  for (int i = threadIdx.x; i < matrix; i += kThreads) {
    unsigned pixels = 0;
    for (int copy = 0; copy < copies; ++copy) pixels += shared[i * copies + copy];
    if (pixels > 0) atomicAdd(op.counts.as<unsigned long long>() + i, pixels);
  }
}

}  // namespace

int64_t upsample_confusion_matrix_workspace(const UpsampleConfusionMatrix&) { return 0; }

// Expects at least one pixel.
void upsample_confusion_matrix(const UpsampleConfusionMatrix& op, float*, void* stream_) {
  const cudaStream_t stream = static_cast<cudaStream_t>(stream_);
  Tiles tiles;
  tiles.in_row = divide_up(op.width(), kThreads);
  tiles.cell_rows = op.rows.cells();
  tiles.total = op.batch() * tiles.cell_rows * tiles.in_row;
  const int64_t matrix = op.classes() * op.classes() * sizeof(unsigned);  // bytes
  int copies = matrix <= kMaxShared ? kMaxCopies : 0;  // 0: threads add directly to op.counts
  while (copies > 1 && copies * matrix > kMaxSharedOfCopies) copies /= 2;
  const dim3 blocks = checked_grid("upsample_confusion_matrix", std::min(tiles.total, kMaxBlocks));
  with_float_type(op.logits.type, [&](auto logit) {
    count_kernel<decltype(logit)><<<blocks, kThreads, copies * matrix, stream>>>(op, tiles, copies);
  });
  check_launch("upsample_confusion_matrix");
}

}  // namespace cuda
}  // namespace gioada
