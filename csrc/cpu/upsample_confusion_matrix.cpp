// CPU kernel: predicts the classes of a block of pixel rows, then counts row by row.
//
// Counts are integers, so they do not depend on how pixels are split among threads and copies.

#include "upsample_confusion_matrix.h"

#include "cpu/argmax.h"

namespace gioada {
inline namespace GIOADA_ISA {
namespace {

// Several histogram copies avoid store-to-load stalls on one counter.
constexpr int64_t kCopies = 4;
// With more classes, all threads add to one matrix.
constexpr int64_t kMaxCopiedClasses = 256;

// Counts the pixels of one row. Returns the column of the first label out of range, or -1.
template <typename L>
int64_t count_row(
    const UpsampleConfusionMatrix& op,
    const L* labels,           // [width]
    const int32_t* predicted,  // [width]
    int32_t* cells,            // [width] receives the elements of the matrix
    int64_t* counts) {  // [kCopies, classes + 1, classes] last row: uncounted pixels; or null
  const int64_t ignore_index = op.ignore_index, width = op.width();
  const int32_t classes = static_cast<int32_t>(op.classes()), uncounted = classes * classes;
  int32_t lowest = kIgnored;
  for (int64_t x = 0; x < width; ++x) {
    const int32_t label = class_of(static_cast<int64_t>(labels[x]), ignore_index, classes);
    cells[x] = (label >= 0 ? label * classes : uncounted) + predicted[x];
    lowest = label < lowest ? label : lowest;
  }
  const auto add = [&](int64_t copy, int32_t cell, int64_t pixels) {
    if (counts != nullptr) {
      counts[copy * (uncounted + classes) + cell] += pixels;
    } else if (cell < uncounted) {
      __atomic_fetch_add(op.counts.as<int64_t>() + cell, pixels, __ATOMIC_RELAXED);
    }
  };
  int64_t x = 0;
  for (; x + kLanes <= width; x += kLanes) {
    const int32_t* strip = cells + x;
    if (!any(load(strip) != strip[0])) {
      add(0, strip[0], kLanes);
      continue;
    }
#pragma GCC unroll 16
    for (int64_t lane = 0; lane < kLanes; ++lane) add(lane % kCopies, strip[lane], 1);
  }
  for (; x < width; ++x) add(0, cells[x], 1);
  if (lowest != kOutOfRange) return -1;
  x = 0;
  while (class_of(static_cast<int64_t>(labels[x]), ignore_index, classes) != kOutOfRange) ++x;
  return x;
}

// Returns the flat index of the first label out of range, or -1.
template <typename T>
int64_t run(const UpsampleConfusionMatrix& op, int threads) {
  const int64_t blocks = row_blocks(op);
  const int workers = worker_count(threads, blocks);
  const int64_t pitch = round_up(op.width(), kLanes);
  const int64_t matrix = op.classes() <= kMaxCopiedClasses ? (op.classes() + 1) * op.classes() : 0;
  const int64_t copies = matrix > 0 ? workers * kCopies : 0;

  const Buffer<int32_t> elements(workers * round_up(pitch, 16));
  const Buffer<int64_t> counts(copies * matrix);
  const Buffer<int64_t> wrong_labels(blocks);
  std::memset(counts.get(), 0, copies * matrix * sizeof(int64_t));
  predict_blocks<T>(op, threads, [&](const PredictedRows& rows) {
    int32_t* cells = elements.get() + rows.thread * round_up(pitch, 16);
    int64_t* own = matrix > 0 ? counts.get() + rows.thread * kCopies * matrix : nullptr;
    wrong_labels[rows.block] = -1;
    for (int64_t y = rows.begin; y < rows.end; ++y) {
      const int64_t row = (rows.n * op.height() + y) * op.width();
      int64_t wrong = -1;
      with_label_type(op.labels.type, [&](auto label) {
        const auto* labels = op.labels.as<const decltype(label)>() + row;
        wrong = count_row(op, labels, rows.row(y), cells, own);
      });
      if (wrong >= 0 && wrong_labels[rows.block] < 0) wrong_labels[rows.block] = row + wrong;
    }
  });
  for (int64_t copy = 0; copy < copies; ++copy) {
    const int64_t* from = counts.get() + copy * matrix;
    for (int64_t i = 0; i < op.classes() * op.classes(); ++i) op.counts.as<int64_t>()[i] += from[i];
  }
  for (int64_t block = 0; block < blocks; ++block) {
    if (wrong_labels[block] >= 0) return wrong_labels[block];
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
