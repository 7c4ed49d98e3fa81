// CPU kernel: predicts the classes of a block of pixel rows strip by strip, then counts row by row.
//
// A strip is one vector of kLanes pixel columns. A pixel row between two input rows costs one
// interpolation and one comparison for each candidate class. Interpolation is convex: a class whose
// maximum lies below another class's minimum cannot win, so it is dropped in advance.
//
// Counts are integers, so they do not depend on how pixels are split among threads and copies.

#include "upsample_confusion_matrix.h"

#include <cmath>

#include "cpu/bilinear.h"

namespace gioada {
inline namespace GIOADA_ISA {
namespace {

constexpr int64_t kBlockRows = 32;
// Several histogram copies avoid store-to-load stalls on one counter.
constexpr int64_t kCopies = 4;
// With more classes, all threads add to one matrix.
constexpr int64_t kMaxCopiedClasses = 256;

// Working memory of one thread.
struct Scratch {
  float *above, *below;  // [classes, kLanes] input rows at the strip's columns
  float *candidates_above, *candidates_below;  // [candidates, kLanes]
  int32_t* candidates;                         // [classes] ascending
  int32_t* predicted;                          // [kBlockRows, padded width]
  int32_t* cells;                              // [padded width] index of the matrix element
  int64_t* counts;  // [kCopies, classes + 1, classes] last row: uncounted pixels; or null
};

// Collects the candidates: classes that can be largest somewhere between `above` and `below`.
// Returns their number, or 0 if a logit is NaN or infinite.
int64_t find_candidates(int64_t classes, const Scratch& s) {
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
inline void predict_rows(int64_t candidates, const float* frac_y,  // [kRows]
                         const Scratch& s,
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
template <typename T>
int32_t predict_pixel(const UpsampleConfusionMatrix& op,
                      const T* image,  // [C, h, w] with the strides of op.logits
                      int64_t y, int64_t x) {
  const int64_t row = op.rows.cell_of(y);
  const int64_t column = op.columns.cell_of(x);
  const float frac_y = op.rows.frac_of(y, row);
  const float frac_x = op.columns.frac_of(x, column);
  const T* corner = image + row * op.logits.strides[2] + column * op.logits.strides[3];
  const int64_t right = op.in_width() > 1 ? op.logits.strides[3] : 0;
  const int64_t down = op.in_height() > 1 ? op.logits.strides[2] : 0;
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
template <typename T>
void predict(const UpsampleConfusionMatrix& op, const Strips& strips,
             const T* image,  // [C, h, w] with the strides of op.logits
             int64_t begin, int64_t end, Scratch s) {
  const int64_t h = op.in_height(), pitch = round_up(op.width(), kLanes);
  float frac_y[kBlockRows];  // weight of the input row below
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

// Counts the pixels of one row. Returns the column of the first label out of range, or -1.
template <typename L>
int64_t count_row(const UpsampleConfusionMatrix& op,
                  const L* labels,           // [width]
                  const int32_t* predicted,  // [width]
                  const Scratch& s) {
  const int64_t ignore_index = op.ignore_index, width = op.width();
  const int32_t classes = static_cast<int32_t>(op.classes()), uncounted = classes * classes;
  int32_t lowest = kIgnored;
  for (int64_t x = 0; x < width; ++x) {
    const int32_t label = class_of(static_cast<int64_t>(labels[x]), ignore_index, classes);
    s.cells[x] = (label >= 0 ? label * classes : uncounted) + predicted[x];
    lowest = label < lowest ? label : lowest;
  }
  const auto add = [&](int64_t copy, int32_t cell, int64_t pixels) {
    if (s.counts != nullptr) {
      s.counts[copy * (uncounted + classes) + cell] += pixels;
    } else if (cell < uncounted) {
      __atomic_fetch_add(op.counts.as<int64_t>() + cell, pixels, __ATOMIC_RELAXED);
    }
  };
  int64_t x = 0;
  for (; x + kLanes <= width; x += kLanes) {
    const int32_t* cells = s.cells + x;
    if (!any(load(cells) != cells[0])) {
      add(0, cells[0], kLanes);
      continue;
    }
#pragma GCC unroll 16
    for (int64_t lane = 0; lane < kLanes; ++lane) add(lane % kCopies, cells[lane], 1);
  }
  for (; x < width; ++x) add(0, s.cells[x], 1);
  if (lowest != kOutOfRange) return -1;
  x = 0;
  while (class_of(static_cast<int64_t>(labels[x]), ignore_index, classes) != kOutOfRange) ++x;
  return x;
}

// Returns the flat index of the first label out of range, or -1.
template <typename T>
int64_t run(const UpsampleConfusionMatrix& op, int threads) {
  const int64_t blocks = (op.height() + kBlockRows - 1) / kBlockRows;  // per image
  const int64_t tasks = op.batch() * blocks;
  const int workers = worker_count(threads, tasks);
  const int64_t tile = op.classes() * kLanes, pitch = round_up(op.width(), kLanes);
  const int64_t scratch_size = round_up(5 * tile + (kBlockRows + 1) * pitch, 16);
  const int64_t matrix = op.classes() <= kMaxCopiedClasses ? (op.classes() + 1) * op.classes() : 0;
  const int64_t copies = matrix > 0 ? workers * kCopies : 0;

  const Strips strips(op.columns);
  const Buffer<float> memory(workers * scratch_size);
  const Buffer<int64_t> counts(copies * matrix);
  const Buffer<int64_t> wrong_labels(tasks);
  std::memset(counts.get(), 0, copies * matrix * sizeof(int64_t));
  parallel_for(tasks, workers, [&](int64_t task, int thread) {
    float* p = memory.get() + thread * scratch_size;
    Scratch s;
    s.above = p;
    s.below = p + tile;
    s.candidates_above = p + 2 * tile;
    s.candidates_below = p + 3 * tile;
    s.candidates = reinterpret_cast<int32_t*>(p + 4 * tile);
    s.predicted = reinterpret_cast<int32_t*>(p + 5 * tile);
    s.cells = s.predicted + kBlockRows * pitch;
    s.counts = matrix > 0 ? counts.get() + thread * kCopies * matrix : nullptr;
    const int64_t n = task / blocks, begin = task % blocks * kBlockRows;
    const int64_t end = begin + kBlockRows < op.height() ? begin + kBlockRows : op.height();
    predict(op, strips, op.logits.as<const T>() + n * op.logits.strides[0], begin, end, s);
    wrong_labels[task] = -1;
    for (int64_t y = begin; y < end; ++y) {
      const int64_t row = (n * op.height() + y) * op.width();
      const int32_t* predicted = s.predicted + (y - begin) * pitch;
      int64_t wrong = -1;
      with_label_type(op.labels.type, [&](auto label) {
        wrong = count_row(op, op.labels.as<const decltype(label)>() + row, predicted, s);
      });
      if (wrong >= 0 && wrong_labels[task] < 0) wrong_labels[task] = row + wrong;
    }
  });
  for (int64_t copy = 0; copy < copies; ++copy) {
    const int64_t* from = counts.get() + copy * matrix;
    for (int64_t i = 0; i < op.classes() * op.classes(); ++i) op.counts.as<int64_t>()[i] += from[i];
  }
  for (int64_t task = 0; task < tasks; ++task) {
    if (wrong_labels[task] >= 0) return wrong_labels[task];
  }
  return -1;
}

}  // namespace

// Expects at least one pixel. Returns the flat index of the first label that is neither a class nor
// ignore_index, or -1.
int64_t upsample_confusion_matrix(const UpsampleConfusionMatrix& op, int threads) {
  int64_t wrong_label = -1;
  with_float_type(op.logits.type,
                  [&](auto logit) { wrong_label = run<decltype(logit)>(op, threads); });
  return wrong_label;
}

}  // namespace GIOADA_ISA
}  // namespace gioada
