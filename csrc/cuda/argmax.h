// Predicts the class of every pixel of bilinearly resized logits, for the kernels that store
// predictions and for those that count them. An Op has the fields `logits`, `rows` and `columns`.
//
// One thread per pixel column predicts several pixel rows of a cell at once: it loops over the
// classes, reads four logits per class for up to kRowsAtOnce rows, and keeps the best class of each
// row in registers.
#pragma once

#include <algorithm>
#include <cmath>

#include "cuda/bilinear.h"
#include "upsample_argmax.h"

namespace gioada {
namespace cuda {

constexpr int kArgmaxThreads = 128;  // of a block
constexpr int kRowsAtOnce = 8;

// Splits the images into tiles: kArgmaxThreads pixel columns of one row of cells.
struct ArgmaxTiles {
  int64_t in_row;     // tiles in a row of cells
  int64_t cell_rows;  // per image
  int64_t total;      // tiles in the batch
};

template <typename Op>
inline ArgmaxTiles argmax_tiles(const Op& op) {
  ArgmaxTiles tiles;
  tiles.in_row = divide_up(op.width(), kArgmaxThreads);
  tiles.cell_rows = op.rows.cells();
  tiles.total = op.batch() * tiles.cell_rows * tiles.in_row;
  return tiles;
}

// Blocks that loop over all tiles.
inline dim3 argmax_grid(const char* kernel, const ArgmaxTiles& tiles) {
  constexpr int64_t kMaxBlocks = 1024;  // 7 per multiprocessor of an H100
  return checked_grid(kernel, std::min(tiles.total, kMaxBlocks));
}

// Predicts kRows pixels of one column within a cell, from row y on; the caller ignores those beyond
// the cell.
template <typename T, int kRows, typename Op>
__device__ __forceinline__ void predict_column(const Op& op, const Corners<T>& corners,
                                               float frac_x, int64_t cell, int64_t y,
                                               int (&arg)[kRows]) {
  const int classes = static_cast<int>(op.classes());
  float frac_y[kRows], best[kRows];
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
}

// Predicts all pixels of this block's tiles. Calls use(pixel, rows, arg): `rows` pixels of a column
// have the classes arg[0], arg[1], ...; `pixel` is the flat index of the first one. `arg` is an
// array of 2 or kRowsAtOnce elements.
template <typename T, typename Op, typename Use>
__device__ __forceinline__ void predict_tiles(const Op& op, const ArgmaxTiles& tiles,
                                              const Use& use) {
  for (int64_t tile = blockIdx.x; tile < tiles.total; tile += gridDim.x) {
    const int64_t x = tile % tiles.in_row * kArgmaxThreads + threadIdx.x;
    if (x >= op.width()) continue;
    const int64_t row = tile / tiles.in_row % tiles.cell_rows;
    const int64_t n = tile / tiles.in_row / tiles.cell_rows;
    const int64_t column = op.columns.cell_of(x);
    const float frac_x = op.columns.frac_of(x, column);
    const Corners<T> corners = corners_of<T>(op.logits, n, row, column);
    const int64_t y_end = op.rows.begin_of(row + 1);
    for (int64_t y = op.rows.begin_of(row); y < y_end;) {
      const int64_t pixel = (n * op.height() + y) * op.width() + x;
      const int rows = static_cast<int>(min(y_end - y, int64_t(kRowsAtOnce)));
      if (rows > 2) {
        int arg[kRowsAtOnce];
        predict_column<T>(op, corners, frac_x, row, y, arg);
        use(pixel, rows, arg);
      } else {
        int arg[2];
        predict_column<T>(op, corners, frac_x, row, y, arg);
        use(pixel, rows, arg);
      }
      y += rows;
    }
  }
}

}  // namespace cuda
}  // namespace gioada
