// CPU kernel: loss and gradient in one pass from top to bottom, without a full-size intermediate.
//
// A strip is one vector of kLanes pixel columns. Each input row is interpolated horizontally once;
// a pixel row between two input rows then costs one fused multiply-add per class. Softmax runs over
// classes, so lanes never mix. Gradients accumulate in two vectors per class, for the input rows
// above and below, and are scattered to input columns once per input row.

#include "upsample_cross_entropy.h"

#include <algorithm>

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
  // Pixel rows of the band, [rows, padded width]:
  int32_t* label;       // see class_of
  float* weight;        // w[label] times pixel weight, 0 where ignored
  float* pixel_weight;  // 0 where ignored; only with label smoothing
};

// Class weights for label smoothing.
struct ClassWeights {
  const float* w;  // [classes]
  float sum;       // of w
  float of_label;  // 1 - label_smoothing
  float of_each;   // label_smoothing / classes
};

struct Sums {
  double loss, weight;
  int64_t wrong_label;  // flat index of the first label out of range, or -1
};

// A pixel row of a strip.
struct PixelRows {
  const float* frac_y;   // [rows]
  const int32_t* label;  // [rows, pitch], as are the next two
  const float* weight;
  const float* pixel_weight;
  int64_t pitch;
  float* loss;  // [rows, loss_pitch], or null
  int64_t loss_pitch;
  int64_t lanes;  // inside the image
};

// Returns the losses of kRows consecutive rows of a strip within one cell. Adds to the gradients,
// or stores the losses if rows.loss is not null. Several rows at once hide the latency of sums and
// exponentials.
template <int kRows, bool kGrad, bool kSmooth>
inline Floats pixel_rows(int64_t classes, const ClassWeights& weights, const PixelRows& rows,
                         const Scratch& s) {
  const float* frac_y = rows.frac_y;
  Ints label[kRows];
  Floats a[kRows], b[kRows], largest[kRows], picked[kRows], sum[kRows], weighted[kRows];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    label[r] = load(rows.label + r * rows.pitch);
    a[r] = load(rows.weight + r * rows.pitch);
    b[r] = weighted[r] = picked[r] = sum[r] = Floats{};
    if (kSmooth) {
      a[r] *= weights.of_label;
      b[r] = weights.of_each * load(rows.pixel_weight + r * rows.pitch);
    }
    largest[r] = load(s.above) + frac_y[r] * load(s.step);
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
      const Floats z = load(at) - largest[r];
      const Floats e = exp_nonpositive(z);
      if (kGrad) store(at, e);
      if (kSmooth) weighted[r] += weights.w[c] * z;
      sum[r] += e;
    }
  }
  if (kGrad) {
    Floats scaled[kRows];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      scaled[r] = (kSmooth ? a[r] + weights.sum * b[r] : a[r]) / sum[r];
    }
    for (int64_t c = 0; c < classes; ++c) {
      Floats grad_above = load(s.grad_above + c * kLanes);
      Floats grad_below = load(s.grad_below + c * kLanes);
      const float w_c = kSmooth ? weights.w[c] : 0.f;
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        const Floats e = load(s.exps + (c * kRows + r) * kLanes);
        const Floats a_if_label = label[r] == static_cast<int32_t>(c) ? a[r] : Floats{};
        const Floats g = logit_gradient<kSmooth>(e, scaled[r], a_if_label, b[r], w_c);
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
    Floats loss = cross_entropy<kSmooth>(a[r], b[r], weights.sum, log_positive(sum[r]),
                                         picked[r] - largest[r], weighted[r]);
    loss = label[r] >= 0 ? loss : Floats{};
    if (!kGrad && rows.loss != nullptr) {
      store_unaligned(rows.loss + r * rows.loss_pitch, loss, rows.lanes);
    }
    total += loss;
  }
  return total;
}

// Fills s.label, s.weight and, for label smoothing, s.pixel_weight for pixel rows [begin, end) of
// image n. Returns the flat index of the first label out of range, or -1.
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
    const float* given = op.pixel_weight
                             ? op.pixel_weight.as<float>() + (n * op.height() + y) * op.width()
                             : nullptr;
    if (op.label_smoothing > 0.f) {
      float* pixel_weight = s.pixel_weight + (y - begin) * padded_width;
      for (int64_t x = 0; x < padded_width; ++x) {
        pixel_weight[x] = label[x] < 0 ? 0.f : given != nullptr ? given[x] : 1.f;
      }
    }
    if (given != nullptr) {  // may be NaN where the label is ignored
      for (int64_t x = 0; x < op.width(); ++x) {
        weight[x] = label[x] >= 0 ? weight[x] * given[x] : 0.f;
      }
    }
  }
  return wrong;
}

// Processes rows of cells [first, last) of image n. Writes the gradient of input rows [first, last)
// to op.grad. Input row `last` also gets a gradient from the next band, so this band's part goes to
// `border`.
template <bool kGrad, bool kSmooth>
Sums walk_band(const UpsampleCrossEntropy& op, const Strips& strips,
               const ClassWeights& class_weights, int64_t n, int64_t first, int64_t last, Scratch s,
               float* border) {  // [input width, classes]
  const int64_t classes = op.classes(), h = op.in_height(), w = op.in_width();
  const int64_t padded_width = round_up(op.width(), kLanes);
  const int64_t row_stride = w + kLanes, row_size = classes * row_stride;
  const int64_t tile = classes * kLanes;
  const int64_t* strides = op.logits.strides;
  const auto interpolate_row = [&](int64_t row, const Strip& strip, float* out) {
    with_float_type(op.logits.type, [&](auto logit) {
      const auto* from = op.logits.as<const decltype(logit)>() + n * strides[0] + row * strides[2];
      interpolate(from, strides[1], strides[3], classes, strip, out);
    });
  };
  const int64_t begin = op.rows.begin_of(first), end = op.rows.begin_of(last);
  float* losses = op.reduction == Reduction::none
                      ? op.loss.as<float>() + n * op.height() * op.width()
                      : nullptr;
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
        const PixelRows rows = {
            frac_y,        s.label + at,
            s.weight + at, kSmooth ? s.pixel_weight + at : nullptr,
            padded_width,  losses ? losses + y * op.width() + x * kLanes : nullptr,
            op.width(),    std::min<int64_t>(op.width() - x * kLanes, kLanes)};
        if (y_end - y >= 4) {
          loss += pixel_rows<4, kGrad, kSmooth>(classes, class_weights, rows, s);
          y += 4;
        } else if (y_end - y >= 2) {
          loss += pixel_rows<2, kGrad, kSmooth>(classes, class_weights, rows, s);
          y += 2;
        } else {
          loss += pixel_rows<1, kGrad, kSmooth>(classes, class_weights, rows, s);
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

}  // namespace

// Expects at least one pixel. Returns the flat index of the first label that is neither a class nor
// ignore_index, or -1.
int64_t upsample_cross_entropy(const UpsampleCrossEntropy& op, int threads) {
  const bool wants_grad(op.grad), smooth = op.label_smoothing > 0.f;
  const int64_t h = op.in_height(), row = op.in_width() * op.classes();
  const CellBands bands(op.batch(), op.rows);
  const int64_t tile = op.classes() * kLanes;
  const int64_t pixels = round_up(bands.max_pixel_rows * round_up(op.width(), kLanes), kLanes);
  const int64_t grad_rows = wants_grad ? (bands.band_rows + 1) * (row + op.classes() * kLanes) : 0;
  const int64_t scratch_size =
      round_up((5 + kRowsAtOnce) * tile + (smooth ? 3 : 2) * pixels + grad_rows, 16);
  const int workers = worker_count(threads, bands.total);

  const Strips strips(op.columns);
  const Buffer<float> memory(workers * scratch_size);
  const Buffer<float> borders(wants_grad ? bands.total * row : 0);
  const Buffer<Sums> sums(bands.total);
  const Buffer<float> w(op.classes());
  ClassWeights class_weights = {w.get(), 0.f, 1.f - op.label_smoothing, op.uniform_weight()};
  for (int64_t c = 0; c < op.classes(); ++c) class_weights.sum += w[c] = op.weight_of(c);
  const auto walk = wants_grad ? (smooth ? walk_band<true, true> : walk_band<true, false>)
                               : (smooth ? walk_band<false, true> : walk_band<false, false>);
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
    s.pixel_weight = s.weight + 2 * pixels;
    s.grad_rows = s.pixel_weight + (smooth ? pixels : 0);
    const int64_t n = bands.image(band), first = bands.begin(band), last = bands.end(band);
    sums[band] = walk(op, strips, class_weights, n, first, last, s, borders.get() + band * row);
  });

  Sums total = {0., 0., -1};
  for (int64_t band = 0; band < bands.total; ++band) {
    if (total.wrong_label < 0) total.wrong_label = sums[band].wrong_label;
    total.loss += sums[band].loss;
    total.weight += sums[band].weight;
  }
  const double scale = op.scale(total.loss, total.weight);
  if (op.reduction != Reduction::none) {
    *op.loss.as<float>() = static_cast<float>(total.loss * scale);
  }
  if (!wants_grad) return total.wrong_label;

  // Completes the input rows that two bands share, and scales all gradients.
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

}  // namespace GIOADA_ISA
}  // namespace gioada
