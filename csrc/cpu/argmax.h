// Predicts the class of every pixel of bilinearly resized logits, for the kernels that store
// predictions and for those that count them. An Op has the fields `logits`, `rows` and `columns`.
//
// A block of pixel rows is predicted strip by strip. A strip is one vector of kLanes pixel columns.
// A pixel row between two input rows costs one interpolation and one comparison for each candidate
// class. Interpolation is convex: a class whose maximum lies below another class's minimum cannot
// win, so it is dropped in advance.
#pragma once

#include <cmath>

#include "cpu/bilinear.h"
#include "upsample_argmax.h"

namespace gioada {
inline namespace GIOADA_ISA {

constexpr int64_t kBlockRows = 32;
// A block may start this many rows earlier, where a cell begins.
constexpr int64_t kMaxShift = kBlockRows / 2;
constexpr int64_t kMaxBlockRows = kBlockRows + kMaxShift;

// Working memory of one thread.
struct ArgmaxScratch {
  float *above, *below;  // [classes, kLanes] input rows at the strip's columns
  float *candidates_above, *candidates_below;  // [candidates, kLanes]
  int32_t* candidates;                         // [classes] ascending
  int32_t* predicted;                          // [kMaxBlockRows, padded width]
};

// Collects the candidates: classes that can be largest somewhere between `above` and `below`.
// Returns their number, or 0 if a logit is NaN or infinite.
static int64_t find_candidates(int64_t classes, const ArgmaxScratch& s) {
  // In every pixel of a column, at least one class reaches this value.
  Floats reached = min(load(s.above), load(s.below));
  Floats zero = Floats{};
  for (int64_t c = 0; c < classes; ++c) {
    const Floats above = load(s.above + c * kLanes), below = load(s.below + c * kLanes);
    reached = max(reached, min(above, below));
    zero += 0.f * above + 0.f * below;
  }
  if (any(zero != zero)) return 0;
  int64_t count = 0;
  for (int64_t c = 0; c < classes; ++c) {
    const Floats above = load(s.above + c * kLanes), below = load(s.below + c * kLanes);
    s.candidates[count] = static_cast<int32_t>(c);
    store(s.candidates_above + count * kLanes, above);
    store(s.candidates_below + count * kLanes, below);
    count += any(max(above, below) >= reached);
  }
  return count;
}

// Predicts kRows consecutive rows of a strip within one cell. Several rows at once hide the latency
// of comparisons.
template <int kRows>
static inline void predict_rows(int64_t candidates, const float* frac_y,  // [kRows]
                                const ArgmaxScratch& s,
                                int32_t* predicted,  // [kRows, pitch]
                                int64_t pitch) {
  Floats best[kRows];
  Ints arg[kRows];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    best[r] = lerp(load(s.candidates_above), load(s.candidates_below), frac_y[r]);
    arg[r] = broadcast(s.candidates[0]);
  }
  for (int64_t i = 1; i < candidates; ++i) {
    const Floats above = load(s.candidates_above + i * kLanes);
    const Floats below = load(s.candidates_below + i * kLanes);
    const Ints c = broadcast(s.candidates[i]);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const Floats z = lerp(above, below, frac_y[r]);
      arg[r] = z > best[r] ? c : arg[r];
      best[r] = max(best[r], z);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    *reinterpret_cast<Ints*>(predicted + r * pitch) = arg[r];
  }
}

// Predicts one pixel from all classes; works for NaN and infinities.
template <typename T, typename Op>
static int32_t predict_pixel(const Op& op,
                             const T* image,  // [C, h, w] with the strides of op.logits
                             int64_t y, int64_t x) {
  const int64_t row = op.rows.cell_of(y);
  const int64_t column = op.columns.cell_of(x);
  const float frac_y = op.rows.frac_of(y, row);
  const float frac_x = op.columns.frac_of(x, column);
  const T* corner = image + row * op.logits.strides[2] + column * op.logits.strides[3];
  const int64_t right = op.columns.in > 1 ? op.logits.strides[3] : 0;
  const int64_t down = op.rows.in > 1 ? op.logits.strides[2] : 0;
  float best = -INFINITY;
  int32_t arg = 0;
  for (int64_t c = 0; c < op.classes(); ++c) {
    float above, below;
    at_column(corner + c * op.logits.strides[1], right, down, frac_x, &above, &below);
    const float z = lerp(above, below, frac_y);
    if (exceeds(z, best)) {
      best = z;
      arg = static_cast<int32_t>(c);
    }
  }
  return arg;
}

// Predicts pixel rows [begin, end) of an image into s.predicted.
template <typename T, typename Op>
static void predict(const Op& op, const Strips& strips,
                    const T* image,  // [C, h, w] with the strides of op.logits
                    int64_t begin, int64_t end, ArgmaxScratch s) {
  const int64_t h = op.rows.in, pitch = round_up(op.width(), kLanes);
  float frac_y[kMaxBlockRows];  // weight of the input row below
  for (int64_t y = begin; y < end; ++y) {
    frac_y[y - begin] = op.rows.frac_of(y, op.rows.cell_of(y));
  }
  for (int64_t strip = 0; strip < strips.count(); ++strip) {
    const auto interpolate_row = [&](int64_t row, float* out) {
      interpolate(image + row * op.logits.strides[2], op.logits.strides[1], op.logits.strides[3],
                  op.classes(), strips[strip], out);
    };
    int64_t row_below = -1;
    for (int64_t y = begin; y < end;) {
      const int64_t cell = op.rows.cell_of(y), next = op.rows.begin_of(cell + 1);
      const int64_t stop = next < end ? next : end;
      if (cell == row_below) {
        float* passed = s.above;
        s.above = s.below;
        s.below = passed;
      } else {
        interpolate_row(cell, s.above);
      }
      row_below = cell + 1 < h ? cell + 1 : cell;
      interpolate_row(row_below, s.below);

      const int64_t candidates = find_candidates(op.classes(), s);
      while (y < stop) {
        int32_t* predicted = s.predicted + (y - begin) * pitch + strip * kLanes;
        if (candidates == 0) {
          for (int64_t x = strip * kLanes; x < (strip + 1) * kLanes && x < op.width(); ++x) {
            *predicted++ = predict_pixel(op, image, y, x);
          }
          y += 1;
        } else if (stop - y >= 4) {
          predict_rows<4>(candidates, frac_y + (y - begin), s, predicted, pitch);
          y += 4;
        } else if (stop - y >= 2) {
          predict_rows<2>(candidates, frac_y + (y - begin), s, predicted, pitch);
          y += 2;
        } else {
          predict_rows<1>(candidates, frac_y + (y - begin), s, predicted, pitch);
          y += 1;
        }
      }
    }
  }
}

// A block of pixel rows of one image with its predictions.
struct PredictedRows {
  int64_t block;             // index in the batch
  int thread;                // that predicts it
  int64_t n;                 // image
  int64_t begin, end;        // pixel rows
  const int32_t* predicted;  // [end - begin, pitch]
  int64_t pitch;

  GIOADA_MEMBER const int32_t* row(int64_t y) const { return predicted + (y - begin) * pitch; }
};

// Number of blocks in the batch.
template <typename Op>
static int64_t row_blocks(const Op& op) {
  return op.batch() * ((op.height() + kBlockRows - 1) / kBlockRows);
}

// First pixel row of a block of an image. A cell that is split between two blocks is interpolated
// twice, so a block starts with a cell if one begins nearby.
template <typename Op>
static int64_t block_begin(const Op& op, int64_t block) {
  const int64_t row = block * kBlockRows;
  if (row >= op.height()) return op.height();
  const int64_t begin = op.rows.begin_of(op.rows.cell_of(row));
  return row - begin <= kMaxShift ? begin : row;
}

// Calls use(PredictedRows) for every block, on worker_count(threads, row_blocks(op)) threads.
template <typename T, typename Op, typename Use>
static void predict_blocks(const Op& op, int threads, const Use& use) {
  const int64_t blocks = row_blocks(op), in_image = blocks / op.batch();
  const int workers = worker_count(threads, blocks);
  const int64_t tile = op.classes() * kLanes, pitch = round_up(op.width(), kLanes);
  const int64_t scratch_size = round_up(5 * tile + kMaxBlockRows * pitch, 16);

  const Strips strips(op.columns);
  const Buffer<float> memory(workers * scratch_size);
  parallel_for(blocks, workers, [&](int64_t block, int thread) {
    float* p = memory.get() + thread * scratch_size;
    ArgmaxScratch s;
    s.above = p;
    s.below = p + tile;
    s.candidates_above = p + 2 * tile;
    s.candidates_below = p + 3 * tile;
    s.candidates = reinterpret_cast<int32_t*>(p + 4 * tile);
    s.predicted = reinterpret_cast<int32_t*>(p + 5 * tile);
    const int64_t n = block / in_image;
    const int64_t begin = block_begin(op, block % in_image);
    const int64_t end = block_begin(op, block % in_image + 1);
    predict(op, strips, op.logits.template as<const T>() + n * op.logits.strides[0], begin, end, s);
    use(PredictedRows{block, thread, n, begin, end, s.predicted, pitch});
  });
}

}  // namespace GIOADA_ISA
}  // namespace gioada
