// Shared by the CUDA kernels that resize bilinearly.
#pragma once

#include <algorithm>

#include "cuda/launch.h"
#include "tensor_view.h"

namespace gioada {
namespace cuda {

// Class of a pixel, kIgnored or kOutOfRange.
template <typename Op>
__device__ __forceinline__ int read_class(const Op& op, int64_t pixel) {
  int64_t label = 0;
  with_label_type(op.labels.type,
                  [&](auto type) { label = op.labels.template as<decltype(type)>()[pixel]; });
  return class_of(label, op.ignore_index, op.classes());
}

// The four corners of a cell in the logits.
template <typename T>
struct Corners {
  const T* above;       // top left
  int64_t right, down;  // offsets to the other corners
  int64_t class_stride;

  // Interpolates class c to a pixel column: *z in the input row above, *step from there to the row
  // below.
  __device__ __forceinline__ void interpolate(int64_t c, float frac_x, float* z,
                                              float* step) const {
    const T* p = above + c * class_stride;
    const float left = 1.f - frac_x;
    *z = left * to_float(p[0]) + frac_x * to_float(p[right]);
    *step = left * to_float(p[down]) + frac_x * to_float(p[down + right]) - *z;
  }
};

// Corners of a cell of image n in a tensor [N, C, h, w].
template <typename T>
__device__ __forceinline__ Corners<T> corners_of(const TensorView& x, int64_t n, int64_t cell_y,
                                                 int64_t cell_x) {
  Corners<T> corners;
  corners.above =
      x.as<const T>() + n * x.strides[0] + cell_y * x.strides[2] + cell_x * x.strides[3];
  corners.right = x.shape[3] > 1 ? x.strides[3] : 0;
  corners.down = x.shape[2] > 1 ? x.strides[2] : 0;
  corners.class_stride = x.strides[1];
  return corners;
}

// Largest number of output points in a cell. Those that lie beyond the input count to the first and
// to the last cell.
inline int64_t widest_cell(const Axis& axis) {
  const int64_t last = axis.cells() - 1;
  const int64_t inner = axis.step > 0 ? divide_up(axis.unit, axis.step) : 0;
  const int64_t at_ends = std::max(axis.begin_of(1), axis.out - axis.begin_of(last));
  return std::max({at_ends, std::min(inner, axis.out), int64_t(1)});
}

// Splits an image into strips: adjacent cells of one row of cells, with all their pixels.
struct CellStrips {
  int64_t cells;      // per strip
  int64_t in_row;     // strips in a row of cells
  int64_t cell_rows;  // per image
  int64_t total;      // strips in the batch
};

// Chooses as many cells per strip as fit into `threads` pixel columns, but at least one.
inline CellStrips cell_strips(int64_t batch, const Axis& rows, const Axis& columns,
                              int64_t threads) {
  const int64_t cells = columns.cells(), widest = widest_cell(columns);
  CellStrips strips;
  strips.cells = widest < threads ? threads / widest : 1;
  if (strips.cells > cells) strips.cells = cells;
  strips.in_row = divide_up(cells, strips.cells);
  strips.cell_rows = rows.cells();
  strips.total = batch * strips.cell_rows * strips.in_row;
  return strips;
}

// Position of a strip: image n, cells [first, last) of a row of cells, and their pixels.
struct StripCells {
  int64_t n, cell_row, first, last;
  int64_t x_begin, x_end, y_begin, y_end;
};

__device__ __forceinline__ StripCells cells_of(const CellStrips& strips, int64_t strip,
                                               const Axis& rows, const Axis& columns) {
  StripCells at;
  at.n = strip / (strips.cell_rows * strips.in_row);
  at.cell_row = strip / strips.in_row % strips.cell_rows;
  at.first = strip % strips.in_row * strips.cells;
  at.last = min(at.first + strips.cells, columns.cells());
  at.x_begin = columns.begin_of(at.first);
  at.x_end = columns.begin_of(at.last);
  at.y_begin = rows.begin_of(at.cell_row);
  at.y_end = rows.begin_of(at.cell_row + 1);
  return at;
}

}  // namespace cuda
}  // namespace gioada
