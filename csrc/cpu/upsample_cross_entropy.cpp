// CPU kernel: loss and gradient in one pass from top to bottom, without a full-size intermediate.
//
// A strip is one vector of kLanes pixel columns. Each input row is interpolated horizontally once;
// a pixel row between two input rows then costs one fused multiply-add per class. Softmax runs over
// classes, so lanes never mix. Gradients accumulate in two vectors per class, for the input rows
// above and below, and are scattered to input columns once per input row.

#include "upsample_cross_entropy.h"

#include "cpu/bands.h"
#include "cpu/bilinear.h"

namespace gioada {
inline namespace GIOADA_ISA {
namespace {

constexpr int64_t kRowsAtOnce = 4;  // pixel rows

// Working memory of one thread.
struct Scratch {
  float *above, *step;             // [classes, kLanes] input row above, and below - above
  float* below;                    // [classes, kLanes] input row below
  float *grad_above, *grad_below;  // [classes, kLanes]
  float* exps;                     // [classes, kRowsAtOnce, kLanes] z, then exp(z - max z)
  float* grad_rows;                // [rows of the band + 1, classes, padded input width]
  int32_t* label;                  // [pixel rows of the band, padded width], see class_of
  float* weight;                   // [pixel rows of the band, padded width] 0 where ignored
};

struct Sums {
  double loss, weight;
  int64_t wrong_label;  // flat index of the first label out of range, or -1
};

// Returns the weighted losses of kRows consecutive rows of a strip within one cell, and adds to the
// gradients. Several rows at once hide the latency of sums and exponentials.
template <int kRows, bool kGrad>
inline Floats pixel_rows(int64_t classes,
                         const float* frac_y,    // [kRows]
                         const int32_t* labels,  // [kRows, pitch]
                         const float* weights,   // [kRows, pitch]
                         int64_t pitch, const Scratch& s) {
  Ints label[kRows];
  Floats weight[kRows], largest[kRows], picked[kRows], sum[kRows];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    label[r] = load(labels + r * pitch);
    weight[r] = load(weights + r * pitch);
    largest[r] = load(s.above) + frac_y[r] * load(s.step);
    picked[r] = sum[r] = Floats{};
  }
  for (int64_t c = 0; c < classes; ++c) {
    const Floats above = load(s.above + c * kLanes), step = load(s.step + c * kLanes);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const Floats z = above + frac_y[r] * step;
      store(s.exps + (c * kRows + r) * kLanes, z);
      largest[r] = max(largest[r], z);
      picked[r] = label[r] == static_cast<int32_t>(c) ? z : picked[r];
    }
  }
  for (int64_t c = 0; c < classes; ++c) {
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      float* at = s.exps + (c * kRows + r) * kLanes;
      const Floats e = exp_nonpositive(load(at) - largest[r]);
      if (kGrad) store(at, e);
      sum[r] += e;
    }
  }
  if (kGrad) {
    Floats scaled[kRows];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) scaled[r] = weight[r] / sum[r];
    for (int64_t c = 0; c < classes; ++c) {
      Floats grad_above = load(s.grad_above + c * kLanes);
      Floats grad_below = load(s.grad_below + c * kLanes);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        const Floats e = load(s.exps + (c * kRows + r) * kLanes);
        const Floats if_label = label[r] == static_cast<int32_t>(c) ? weight[r] : Floats{};
        const Floats g = logit_gradient(e, scaled[r], if_label);
        grad_above += (1.f - frac_y[r]) * g;
        grad_below += frac_y[r] * g;
      }
      store(s.grad_above + c * kLanes, grad_above);
      store(s.grad_below + c * kLanes, grad_below);
    }
  }
  Floats total = Floats{};
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    const Floats loss = weight[r] * (log_positive(sum[r]) + (largest[r] - picked[r]));
    total += label[r] >= 0 ? loss : Floats{};
  }
  return total;
}

// Fills s.label and s.weight for pixel rows [begin, end) of image n. Returns the flat index of the
// first label out of range, or -1.
template <typename L>
int64_t read_labels(const UpsampleCrossEntropy& op, int64_t n, int64_t begin, int64_t end,
                    int64_t padded_width, const Scratch& s) {
  const int64_t classes = op.classes(), ignore_index = op.ignore_index;
  int64_t wrong = -1;
  for (int64_t y = begin; y < end; ++y) {
    const L* row = op.labels.as<const L>() + (n * op.height() + y) * op.width();
    int32_t* label = s.label + (y - begin) * padded_width;
    float* weight = s.weight + (y - begin) * padded_width;
    int32_t lowest = kIgnored;
    for (int64_t x = 0; x < op.width(); ++x) {
      label[x] = class_of(static_cast<int64_t>(row[x]), ignore_index, classes);
      lowest = label[x] < lowest ? label[x] : lowest;
    }
    for (int64_t x = op.width(); x < padded_width; ++x) label[x] = kIgnored;
    if (lowest == kOutOfRange && wrong < 0) {
      int64_t x = 0;
      while (label[x] != kOutOfRange) ++x;
      wrong = (n * op.height() + y) * op.width() + x;
    }
    if (op.weight) {
      for (int64_t x = 0; x < padded_width; ++x) {
        weight[x] = label[x] >= 0 ? op.weight.as<float>()[label[x]] : 0.f;
      }
    } else {
      for (int64_t x = 0; x < padded_width; ++x) weight[x] = label[x] >= 0 ? 1.f : 0.f;
    }
  }
  return wrong;
}

// Processes rows of cells [first, last) of image n. Writes the gradient of input rows [first, last)
// to op.grad. Input row `last` also gets a gradient from the next band, so this band's part goes to
// `border`.
template <typename T, bool kGrad>
Sums walk_band(const UpsampleCrossEntropy& op, const Strips& strips, int64_t n, int64_t first,
               int64_t last, Scratch s,
               float* border) {  // [input width, classes]
  const int64_t classes = op.classes(), h = op.in_height(), w = op.in_width();
  const int64_t padded_width = round_up(op.width(), kLanes);
  const int64_t row_stride = w + kLanes, row_size = classes * row_stride;
  const int64_t tile = classes * kLanes;
  const T* image = op.logits.as<const T>() + n * op.logits.strides[0];
  const auto interpolate_row = [&](int64_t row, const Strip& strip, float* out) {
    interpolate(image + row * op.logits.strides[2], op.logits.strides[1], op.logits.strides[3],
                classes, strip, out);
  };
  const int64_t begin = op.rows.begin_of(first), end = op.rows.begin_of(last);
  Sums sums = {0., 0., -1};
  with_label_type(op.labels.type, [&](auto label) {
    sums.wrong_label = read_labels<decltype(label)>(op, n, begin, end, padded_width, s);
  });
  if (kGrad) std::memset(s.grad_rows, 0, (last - first + 1) * row_size * sizeof(float));

  for (int64_t i = 0; i < (end - begin) * padded_width; i += kLanes) {
    const Floats weight = load(s.weight + i);
    float total = 0.f;
    for (int lane = 0; lane < kLanes; ++lane) total += weight[lane];
    sums.weight += total;
  }
  for (int64_t x = 0; x < strips.count(); ++x) {
    const Strip& strip = strips[x];
    interpolate_row(first, strip, s.above);
    if (kGrad) std::memset(s.grad_above, 0, tile * sizeof(float));
    for (int64_t cell = first; cell < last; ++cell) {
      interpolate_row(cell + 1 < h ? cell + 1 : cell, strip, s.below);
      for (int64_t i = 0; i < tile; i += kLanes) {
        store(s.step + i, load(s.below + i) - load(s.above + i));
      }
      if (kGrad) std::memset(s.grad_below, 0, tile * sizeof(float));
      const int64_t y_end = op.rows.begin_of(cell + 1);
      Floats loss = Floats{};
      for (int64_t y = op.rows.begin_of(cell); y < y_end;) {
        float frac_y[kRowsAtOnce];
        for (int64_t r = 0; r < kRowsAtOnce; ++r) frac_y[r] = op.rows.frac_of(y + r, cell);
        const int64_t at = (y - begin) * padded_width + x * kLanes;
        const int32_t* labels = s.label + at;
        const float* weights = s.weight + at;
        if (y_end - y >= 4) {
          loss += pixel_rows<4, kGrad>(classes, frac_y, labels, weights, padded_width, s);
          y += 4;
        } else if (y_end - y >= 2) {
          loss += pixel_rows<2, kGrad>(classes, frac_y, labels, weights, padded_width, s);
          y += 2;
        } else {
          loss += pixel_rows<1, kGrad>(classes, frac_y, labels, weights, padded_width, s);
          y += 1;
        }
      }
      for (int lane = 0; lane < kLanes; ++lane) sums.loss += loss[lane];
      if (kGrad) {
        scatter(s.grad_above, classes, strip, s.grad_rows + (cell - first) * row_size, row_stride);
        float* done = s.grad_above;
        s.grad_above = s.grad_below;
        s.grad_below = done;
      }
      float* passed = s.above;
      s.above = s.below;
      s.below = passed;
    }
    if (kGrad)
      scatter(s.grad_above, classes, strip, s.grad_rows + (last - first) * row_size, row_stride);
  }
  if (kGrad) {
    for (int64_t row = first; row <= last; ++row) {
      const float* from = s.grad_rows + (row - first) * row_size;
      float* to = row < last ? op.grad.as<float>() + (n * h + row) * w * classes : border;
      for (int64_t x = 0; x < w; ++x) {
        for (int64_t c = 0; c < classes; ++c) to[x * classes + c] = from[c * row_stride + x];
      }
    }
  }
  return sums;
}

// Returns the flat index of the first label out of range, or -1.
template <typename T>
int64_t run(const UpsampleCrossEntropy& op, int threads) {
  const bool wants_grad(op.grad);
  const int64_t h = op.in_height(), row = op.in_width() * op.classes();
  const CellBands bands(op.batch(), op.rows);
  const int64_t tile = op.classes() * kLanes;
  const int64_t pixels = round_up(bands.max_pixel_rows * round_up(op.width(), kLanes), kLanes);
  const int64_t grad_rows = wants_grad ? (bands.band_rows + 1) * (row + op.classes() * kLanes) : 0;
  const int64_t scratch_size = round_up((5 + kRowsAtOnce) * tile + 2 * pixels + grad_rows, 16);
  const int workers = worker_count(threads, bands.total);

  const Strips strips(op.columns);
  const Buffer<float> memory(workers * scratch_size);
  const Buffer<float> borders(wants_grad ? bands.total * row : 0);
  const Buffer<Sums> sums(bands.total);
  parallel_for(bands.total, workers, [&](int64_t band, int thread) {
    float* p = memory.get() + thread * scratch_size;
    Scratch s;
    s.above = p;
    s.step = p + tile;
    s.below = p + 2 * tile;
    s.grad_above = p + 3 * tile;
    s.grad_below = p + 4 * tile;
    s.exps = p + 5 * tile;
    s.weight = s.exps + kRowsAtOnce * tile;
    s.label = reinterpret_cast<int32_t*>(s.weight + pixels);
    s.grad_rows = s.weight + 2 * pixels;
    const int64_t n = bands.image(band), first = bands.begin(band), last = bands.end(band);
    float* border = borders.get() + band * row;
    sums[band] = wants_grad ? walk_band<T, true>(op, strips, n, first, last, s, border)
                            : walk_band<T, false>(op, strips, n, first, last, s, nullptr);
  });

  Sums total = {0., 0., -1};
  for (int64_t band = 0; band < bands.total; ++band) {
    if (total.wrong_label < 0) total.wrong_label = sums[band].wrong_label;
    total.loss += sums[band].loss;
    total.weight += sums[band].weight;
  }
  const double scale = total.weight > 0. ? 1. / total.weight : 0.;
  *op.loss.as<float>() = static_cast<float>(total.loss * scale);
  if (!wants_grad) return total.wrong_label;

  // Completes the input rows that two bands share, and divides all gradients by the sum of weights.
  parallel_for(bands.total, workers, [&](int64_t band, int) {
    const float factor = static_cast<float>(scale);
    const int64_t n = bands.image(band), first = bands.begin(band);
    const bool is_last = bands.is_last(band);
    // If h is 1, the row below the only cell has weight 0: its border is dropped.
    const int64_t rows = is_last ? h - first : bands.band_rows;
    float* grad = op.grad.as<float>() + (n * h + first) * row;
    if (first > 0) {
      const float* border = borders.get() + (band - 1) * row;
      for (int64_t i = 0; i < row; ++i) grad[i] += border[i];
    }
    if (is_last && h > 1) {
      std::memcpy(grad + (rows - 1) * row, borders.get() + band * row, row * sizeof(float));
    }
    for (int64_t i = 0; i < rows * row; ++i) grad[i] *= factor;
  });
  return total.wrong_label;
}

}  // namespace

// Expects at least one pixel. Returns the flat index of the first label that is neither a class nor
// ignore_index, or -1.
int64_t upsample_cross_entropy(const UpsampleCrossEntropy& op, int threads) {
  int64_t wrong_label = -1;
  with_float_type(op.logits.type,
                  [&](auto logit) { wrong_label = run<decltype(logit)>(op, threads); });
  return wrong_label;
}

}  // namespace GIOADA_ISA
}  // namespace gioada
