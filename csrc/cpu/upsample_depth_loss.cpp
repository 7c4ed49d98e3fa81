// CPU kernel: loss and gradient in one pass over the target, without a full-size intermediate.
// Kinds that need a statistic of all errors have a pass before it.
//
// Each input row is interpolated horizontally once per pass. A vector of pixels between two input
// rows then costs a multiplication and a fused multiply-add. Gradients accumulate for the input
// rows above and below, and are scattered to input columns once per input row.

#include "upsample_depth_loss.h"

#include <type_traits>
#include <utility>

#include "cpu/bands.h"
#include "cpu/bilinear.h"

namespace gioada {
inline namespace GIOADA_ISA {
namespace {

enum class Pass { statistic, map, loss, gradient };

// Working memory of one thread.
struct Scratch {
  float *above, *below;            // [padded width] input rows, interpolated to pixel columns
  float *grad_above, *grad_below;  // [padded width]
  float* frac_y;                   // [pixel rows of the band] weight of the input row below
};

struct Sums {
  double loss;    // in the statistic pass of silog, the errors
  double weight;  // over valid pixels
  float largest;  // largest |e|
};

// Mask of the first `count` lanes.
inline Ints first_lanes(int64_t count) {
  Ints lanes;
  for (int i = 0; i < kLanes; ++i) lanes[i] = i;
  return lanes < static_cast<int32_t>(count);
}

inline void interpolate_row(const UpsampleDepthLoss& op, int64_t n, int64_t row,
                            const Strips& strips,
                            float* out) {  // [padded width]
  const int64_t offset = n * op.depth.strides[0] + row * op.depth.strides[2];
  const int64_t column_stride = op.depth.strides[3];
  for (int64_t s = 0; s < strips.count(); ++s, out += kLanes) {
    with_float_type(op.depth.type, [&](auto depth) {
      using T = decltype(depth);
      interpolate(op.depth.as<const T>() + offset, 0, column_stride, 1, strips[s], out);
    });
  }
}

// Processes rows of cells [first, last) of image n. Writes the gradient of input rows [first, last]
// to grad_rows.
template <typename T, Pass kPass, bool kLog, bool kWeighted>
Sums walk(const UpsampleDepthLoss& op, const Strips& strips, const Curve& curve, int64_t n,
          int64_t first, int64_t last, Scratch s,
          float* grad_rows,  // [last - first + 1, pitch]
          int64_t pitch) {
  constexpr bool kGrad = kPass == Pass::gradient;
  const int64_t h = op.in_height();
  const int64_t row_bytes = strips.count() * kLanes * sizeof(float);
  const int64_t begin = op.rows.begin_of(first);
  for (int64_t cell = first; cell < last; ++cell) {
    const int64_t y_end = op.rows.begin_of(cell + 1);
    for (int64_t y = op.rows.begin_of(cell); y < y_end; ++y) {
      s.frac_y[y - begin] = op.rows.frac_of(y, cell);
    }
  }

  Sums sums = {0., 0., 0.f};
  Floats largest = Floats{};
  interpolate_row(op, n, first, strips, s.above);
  if (kGrad) {
    std::memset(s.grad_above, 0, row_bytes);
    std::memset(grad_rows, 0, (last - first + 1) * pitch * sizeof(float));
  }
  for (int64_t cell = first; cell < last; ++cell) {
    interpolate_row(op, n, cell + 1 < h ? cell + 1 : cell, strips, s.below);
    const int64_t y_begin = op.rows.begin_of(cell);
    const int64_t rows = op.rows.begin_of(cell + 1) - y_begin;
    const float* frac_y = s.frac_y + (y_begin - begin);
    Floats row_loss = Floats{};
    std::conditional_t<kWeighted, Floats, Ints> row_weight = {};  // without weights, a count
    for (int64_t i = 0; i < strips.count(); ++i) {
      const int64_t x = i * kLanes;
      const int64_t count = op.width() - x < kLanes ? op.width() - x : kLanes;
      const Ints inside = first_lanes(count);
      const int64_t pixel = (n * op.height() + y_begin) * op.width() + x;
      const T* target = op.target.as<const T>() + pixel;
      const Floats above = load(s.above + x), below = load(s.below + x);
      Floats loss = Floats{}, grad_above = Floats{}, grad_below = Floats{};
      for (int64_t r = 0; r < rows; ++r) {
        Ints valid = inside;
        if (op.valid) {
          valid = __builtin_convertvector(
              load_unaligned(op.valid.as<const uint8_t>() + pixel + r * op.width(), count) != 0,
              Ints);
        }
        const Floats z = (1.f - frac_y[r]) * above + frac_y[r] * below;
        const Floats t = load_unaligned(target + r * op.width(), count);
        const Floats e = valid ? (kLog ? log_ratio(z, t, log_positive) : z - t) : Floats{};
        if (kPass == Pass::statistic && !kLog) {
          largest = max(e, largest);
          largest = max(-e, largest);
          continue;
        }
        Floats f, slope;
        if (kPass == Pass::statistic) {
          f = e;
        } else if (kLog) {
          log_error(e, z, curve, &f, &slope);
          f = valid ? f : Floats{};
          slope = valid ? slope : Floats{};
        } else {
          depth_error(e, curve, &f, &slope);
        }
        if constexpr (kWeighted) {
          const float* weights = op.pixel_weight.as<const float>() + pixel + r * op.width();
          const Floats weight = valid ? load_unaligned(weights, count) : Floats{};
          f *= weight;
          slope *= weight;
          row_weight += weight;
        } else {
          row_weight -= valid;
        }
        if (kPass == Pass::map) {
          store_unaligned(op.loss.as<float>() + pixel + r * op.width(), f, count);
        }
        loss += f;
        if (kGrad) {
          grad_above += (1.f - frac_y[r]) * slope;
          grad_below += frac_y[r] * slope;
        }
      }
      row_loss += loss;
      if (kGrad) {
        store(s.grad_above + x, load(s.grad_above + x) + grad_above);
        store(s.grad_below + x, grad_below);
        scatter(s.grad_above + x, 1, strips[i], grad_rows + (cell - first) * pitch, 0);
      }
    }
    for (int lane = 0; lane < kLanes; ++lane) {
      sums.loss += row_loss[lane];
      sums.weight += row_weight[lane];
    }
    std::swap(s.above, s.below);
    std::swap(s.grad_above, s.grad_below);
  }
  if (kGrad) {
    for (int64_t i = 0; i < strips.count(); ++i) {
      scatter(s.grad_above + i * kLanes, 1, strips[i], grad_rows + (last - first) * pitch, 0);
    }
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    if (largest[lane] > sums.largest) sums.largest = largest[lane];
  }
  return sums;
}

template <typename T, bool kLog, bool kWeighted>
void run(const UpsampleDepthLoss& op, int threads) {
  const bool wants_grad(op.grad);
  const Strips strips(op.columns);
  const CellBands bands(op.batch(), op.rows);
  const int64_t padded_width = strips.count() * kLanes;
  const int64_t pitch = op.in_width() + kLanes;  // `scatter` writes whole vectors
  const int64_t band_grad = wants_grad ? (bands.band_rows + 1) * pitch : 0;
  const int64_t scratch_size = 4 * padded_width + round_up(bands.max_pixel_rows, 16);
  const int workers = worker_count(threads, bands.total);
  const Buffer<float> memory(workers * scratch_size);
  const Buffer<float> grads(bands.total * band_grad);
  const Buffer<Sums> sums(bands.total);

  const auto walk_all = [&](auto walk_band, const Curve& curve) {
    parallel_for(bands.total, workers, [&](int64_t band, int thread) {
      float* p = memory.get() + thread * scratch_size;
      const Scratch s = {p, p + padded_width, p + 2 * padded_width, p + 3 * padded_width,
                         p + 4 * padded_width};
      sums[band] = walk_band(op, strips, curve, bands.image(band), bands.begin(band),
                             bands.end(band), s, grads.get() + band * band_grad, pitch);
    });
    Sums total = {0., 0., 0.f};
    for (int64_t band = 0; band < bands.total; ++band) {
      total.loss += sums[band].loss;
      total.weight += sums[band].weight;
      if (sums[band].largest > total.largest) total.largest = sums[band].largest;
    }
    return total;
  };

  float statistic = 0.f;
  if (op.needs_statistic()) {
    const Sums found = walk_all(walk < T, Pass::statistic, kLog, kWeighted && kLog >, Curve{});
    const double scale = loss_scale(Reduction::mean, found.loss, found.weight);
    statistic = kLog ? static_cast<float>(found.loss * scale) : found.largest;
  }
  const Curve curve = curve_of(op, statistic);
  if (op.reduction == Reduction::none) {
    if constexpr (!kLog) walk_all(walk<T, Pass::map, kLog, kWeighted>, curve);
    return;
  }
  const Sums total = wants_grad ? walk_all(walk<T, Pass::gradient, kLog, kWeighted>, curve)
                                : walk_all(walk<T, Pass::loss, kLog, kWeighted>, curve);
  const double scale = loss_scale(op.reduction, total.loss, total.weight);
  *op.loss.as<float>() = static_cast<float>(total.loss * scale);
  if (!wants_grad) return;

  // The first row of a band is also the last row of the band before it: adds both parts.
  parallel_for(bands.total, workers, [&](int64_t band, int) {
    const int64_t n = bands.image(band), first = bands.begin(band);
    const int64_t end = bands.is_last(band) ? op.in_height() : bands.end(band);
    const float factor = static_cast<float>(scale);
    const float* from = grads.get() + band * band_grad;
    for (int64_t row = first; row < end; ++row, from += pitch) {
      float* grad = op.grad.as<float>() + (n * op.in_height() + row) * op.in_width();
      const bool shared = first > 0 && row == first;
      const float* before = shared ? from - band_grad + bands.band_rows * pitch : nullptr;
      for (int64_t x = 0; x < op.in_width(); ++x) {
        grad[x] = (shared ? before[x] + from[x] : from[x]) * factor;
      }
    }
  });
}

}  // namespace

// Expects at least one pixel.
void upsample_depth_loss(const UpsampleDepthLoss& op, int threads) {
  with_float_type(op.target.type, [&](auto target) {
    using T = decltype(target);
    if (op.logarithmic()) {
      op.pixel_weight ? run<T, true, true>(op, threads) : run<T, true, false>(op, threads);
    } else {
      op.pixel_weight ? run<T, false, true>(op, threads) : run<T, false, false>(op, threads);
    }
  });
}

}  // namespace GIOADA_ISA
}  // namespace gioada
