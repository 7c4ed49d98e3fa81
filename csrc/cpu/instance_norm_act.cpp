// CPU kernels: pass 1 computes the statistics, pass 2 the result. Both use full vectors for any
// number of channels.
//
// A row of pixels is a flat array in which the channels repeat. It is processed in periods:
// multiples of lcm(channels, kLanes) with a minimum length. Values per channel are repeated to the
// length of a period, and sums over pixels are kept for each element of it.
//
// Pass 2 traverses each thread's bands backwards, while their rows are still cached.

#include "instance_norm_act.h"

#include <type_traits>

#include "cpu/bands.h"
#include "cpu/simd.h"

namespace gioada {
inline namespace GIOADA_ISA {
namespace {

// Minimum length of a period in vectors: successive additions then go to different sums and
// overlap.
constexpr int64_t kMinPeriodVectors = 8;
constexpr int64_t kChunk = 32;  // periods that are summed in float before they are merged in double

int64_t period_of(int64_t channels) {
  int64_t period = channels;
  while (period % kLanes != 0) period += channels;
  const int64_t min_length = kMinPeriodVectors * kLanes;
  return (min_length + period - 1) / period * period;
}

// Calls body(index, index in the period, count) for all vectors of a row. `count`, the number of
// elements, is a compile-time constant except for the last vector.
template <typename Body>
inline void for_each_vector(int64_t elements, int64_t period, const Body& body) {
  const std::integral_constant<int64_t, kLanes> whole;
  int64_t i = 0;
  for (; i + period <= elements; i += period) {
    for (int64_t lane = 0; lane < period; lane += kLanes) body(i + lane, lane, whole);
  }
  int64_t lane = 0;
  for (; i + lane + kLanes <= elements; lane += kLanes) body(i + lane, lane, whole);
  if (i + lane < elements) body(i + lane, lane, elements - i - lane);
}

// Repeats one value per channel to the length of a period.
inline void repeat(const float* values, int64_t channels, int64_t period, float* out) {
  for (int64_t i = 0; i < period; i += channels) {
    std::memcpy(out + i, values, channels * sizeof(float));
  }
}

struct Exp {
  Floats operator()(Floats x) const { return exp_nonpositive(x); }
};

// Values per channel of an image's normalisation, each repeated to the length of a period. Members
// are always inlined, so that the addresses stay in registers.
struct Normalization {
  float *mean, *rstd, *weight, *bias;  // [period]

  // In the first kArrays * period elements of `scratch`.
  static constexpr int kArrays = 4;
  Normalization(float* scratch, int64_t period)
      : mean(scratch),
        rstd(scratch + period),
        weight(scratch + 2 * period),
        bias(scratch + 3 * period) {}

  template <typename Variant, typename Arguments>
  GIOADA_MEMBER void fill(const Arguments& op, int64_t n, int64_t period) {
    const int64_t c = op.channels();
    repeat(op.mean.template as<float>() + n * c, c, period, mean);
    repeat(op.rstd.template as<float>() + n * c, c, period, rstd);
    if constexpr (Variant::kAffine) {
      for (int64_t i = 0; i < period; ++i) weight[i] = 1.f;
      if (op.weight) repeat(op.weight.template as<float>(), c, period, weight);
      for (int64_t i = 0; i < period; ++i) bias[i] = 0.f;
      if (op.bias) repeat(op.bias.template as<float>(), c, period, bias);
    }
  }

  // The activation's argument for centred = x - mean.
  template <typename Variant>
  GIOADA_MEMBER Floats argument(Floats centred, int64_t lane) const {
    const Floats z = centred * load(rstd + lane);
    return Variant::kAffine ? z * load(weight + lane) + load(bias + lane) : z;
  }

  // gy act'(a), which is the gradient of the bias.
  template <typename Variant>
  GIOADA_MEMBER Floats gradient(Floats centred, Floats gy, float negative_slope,
                                int64_t lane) const {
    const Floats a = Variant::kAffine ? argument<Variant>(centred, lane) : centred;
    return activation_gradient<Variant::kActivation>(a, gy, negative_slope, Exp());
  }
};

// Mean and sum of squared deviations of each channel over `pixels` pixels. Sums differences from
// the mean so far, so a channel with a large offset loses no precision. If differences are large,
// so is the variance.
template <typename T>
void band_moments(const T* x,  // [pixels, channels]
                  int64_t pixels, int64_t channels, int64_t period,
                  float* __restrict__ scratch,  // float [3, period], then double [2, period]
                  double* mean,                 // [channels]
                  double* squares) {            // [channels]
  float *shift = scratch, *sum = scratch + period, *sum_squares = scratch + 2 * period;
  double* lane_mean = reinterpret_cast<double*>(scratch + 3 * period);
  double* lane_squares = lane_mean + period;
  const int64_t pixels_of_period = period / channels, periods = pixels / pixels_of_period;
  for (int64_t i = 0; i < period; ++i) lane_mean[i] = lane_squares[i] = 0.;

  for (int64_t first = 0; first < periods; first += kChunk) {
    const int64_t count = periods - first < kChunk ? periods - first : kChunk;
    const T* chunk = x + first * period;
    if (first == 0) {
      std::memset(sum, 0, period * sizeof(float));
      for (int64_t at = 0; at < count * period; at += period) {
        for (int64_t i = 0; i < period; i += kLanes) {
          store(sum + i, load(sum + i) + load_unaligned(chunk + at + i));
        }
      }
      for (int64_t i = 0; i < period; ++i) lane_mean[i] = sum[i] / count;
    }
    for (int64_t i = 0; i < period; ++i) shift[i] = static_cast<float>(lane_mean[i]);
    std::memset(sum, 0, 2 * period * sizeof(float));
    for (int64_t at = 0; at < count * period; at += period) {
      for (int64_t i = 0; i < period; i += kLanes) {
        const Floats difference = load_unaligned(chunk + at + i) - load(shift + i);
        store(sum + i, load(sum + i) + difference);
        store(sum_squares + i, load(sum_squares + i) + difference * difference);
      }
    }
    // merge_moments, vectorised: all elements of a period have the same counts
    const double inverse = 1. / count, before = first, share = count / (before + count);
    for (int64_t i = 0; i < period; ++i) {
      const double excess = sum[i] * inverse, old = first == 0 ? shift[i] : lane_mean[i];
      const double delta = shift[i] + excess - old;
      lane_mean[i] = old + delta * share;
      lane_squares[i] += sum_squares[i] - sum[i] * excess + delta * delta * (before * share);
    }
  }
  for (int64_t c = 0; c < channels; ++c) {
    double count = 0., total_mean = 0., total_squares = 0.;
    for (int64_t i = c; i < period; i += channels) {
      merge_moments(static_cast<double>(periods), lane_mean[i], lane_squares[i], &count,
                    &total_mean, &total_squares);
    }
    for (int64_t pixel = periods * pixels_of_period; pixel < pixels; ++pixel) {
      const double value = to_float(x[pixel * channels + c]);
      merge_moments(1., value, 0., &count, &total_mean, &total_squares);
    }
    mean[c] = total_mean;
    squares[c] = total_squares;
  }
}

// Writes one row of the padded result and its reflections.
template <typename T, typename Variant>
void write_row(const InstanceNormAct& op, int64_t n, int64_t y, int64_t period,
               Normalization norm) {
  const int64_t c = op.channels(), pad = op.pad;
  const int64_t out_row = (op.width() + 2 * pad) * c;
  const T* x = op.x.as<const T>() + (n * op.height() + y) * op.width() * c;
  T* image = op.out.as<T>() + n * (op.height() + 2 * pad) * out_row;
  T* row = image + (y + pad) * out_row;
  T* out = row + pad * c;
  const float negative_slope = op.negative_slope;
  const auto normalized = [&](int64_t i, int64_t lane, auto count) {
    const Floats centred = load_unaligned(x + i, count) - load(norm.mean + lane);
    return activate<Variant::kActivation>(norm.argument<Variant>(centred, lane), negative_slope,
                                          Exp());
  };
  if (op.residual) {
    const T* residual =
        op.residual.as<const T>() + n * op.residual.strides[0] + y * op.residual.strides[2];
    for_each_vector(op.width() * c, period, [&](int64_t i, int64_t lane, auto count) {
      store_unaligned(out + i, normalized(i, lane, count) + load_unaligned(residual + i, count),
                      count);
    });
  } else {
    for_each_vector(op.width() * c, period, [&](int64_t i, int64_t lane, auto count) {
      store_unaligned(out + i, normalized(i, lane, count), count);
    });
  }
  for (int64_t i = 1; i <= pad; ++i) {
    std::memcpy(out - i * c, out + i * c, c * sizeof(T));
    T* last = out + (op.width() - 1) * c;
    std::memcpy(last + i * c, last - i * c, c * sizeof(T));
  }
  for (int i = 1; i < kPaddedCopies; ++i) {
    const int64_t mirrored = padded_copy_of(i, y, op.height(), pad);
    if (mirrored >= 0) std::memcpy(image + mirrored * out_row, row, out_row * sizeof(T));
  }
}

template <typename T, typename Variant>
void forward(const InstanceNormAct& op, int threads) {
  const int64_t c = op.channels(), period = period_of(c);
  const Bands bands(op.batch(), op.height());
  const int workers = worker_count(threads, bands.total);
  const int64_t out_pixels = op.batch() * (op.height() + 2 * op.pad) * (op.width() + 2 * op.pad);
  prefer_huge_pages(op.out.data, out_pixels * c * sizeof(T));

  const int64_t scratch_size = round_up(7 * period, 16);
  const Buffer<float> scratch(workers * scratch_size);
  const Buffer<double> means(bands.total * c), squares(bands.total * c);
  bands.walk(workers, [&](int64_t band, int thread) {
    const int64_t y = bands.begin(band), rows = bands.end(band) - y;
    const T* x = op.x.as<const T>() + (bands.image(band) * op.height() + y) * op.width() * c;
    band_moments(x, rows * op.width(), c, period, scratch.get() + thread * scratch_size,
                 means.get() + band * c, squares.get() + band * c);
  });
  const int64_t group_size = op.group_size();
  for (int64_t n = 0; n < op.batch(); ++n) {
    for (int64_t first = 0; first < c; first += group_size) {
      double count = 0., mean = 0., sum = 0.;
      for (int64_t i = first; i < first + group_size; ++i) {
        for (int64_t band = n * bands.in_image; band < (n + 1) * bands.in_image; ++band) {
          const int64_t rows = bands.end(band) - bands.begin(band);
          merge_moments(static_cast<double>(rows * op.width()), means[band * c + i],
                        squares[band * c + i], &count, &mean, &sum);
        }
      }
      for (int64_t i = first; i < first + group_size; ++i) {
        op.mean.as<float>()[n * c + i] = static_cast<float>(mean);
        op.rstd.as<float>()[n * c + i] = reciprocal_deviation(sum / count, op.eps);
      }
    }
  }
  bands.walk_back(workers, [&](int64_t band, int thread) {
    const int64_t n = bands.image(band);
    Normalization norm(scratch.get() + thread * scratch_size, period);
    norm.fill<Variant>(op, n, period);
    for (int64_t y = bands.end(band) - 1; y >= bands.begin(band); --y) {
      write_row<T, Variant>(op, n, y, period, norm);
    }
  });
}

// For pixels [begin, end) of row y, sums the gradient over each pixel and its copies in the
// padding.
template <typename T>
void fold(const InstanceNormActBackward& op, int64_t n, int64_t y, int64_t begin, int64_t end,
          float* __restrict__ out) {  // [end - begin, channels]
  const int64_t c = op.channels(), pad = op.pad, row_size = (op.width() + 2 * pad) * c;
  for (int r = 0; r < kPaddedCopies; ++r) {
    const int64_t row_index = padded_copy_of(r, y, op.height(), pad);
    if (row_index < 0) continue;
    const T* row = op.grad.as<const T>() + (n * (op.height() + 2 * pad) + row_index) * row_size;
    const T* direct = row + (begin + pad) * c;
    for (int64_t i = 0; i < (end - begin) * c; ++i) {
      out[i] = (r == 0 ? 0.f : out[i]) + to_float(direct[i]);
    }
    for (int64_t x = begin; x < end; ++x) {
      for (int s = 1; s < kPaddedCopies; ++s) {
        const int64_t column = padded_copy_of(s, x, op.width(), pad);
        if (column < 0) continue;
        for (int64_t i = 0; i < c; ++i) out[(x - begin) * c + i] += to_float(row[column * c + i]);
      }
    }
  }
}

// Calls body(first pixel, pixels, gradient [pixels, channels]) for pieces of row y. The gradient of
// pixels without copies in the padding is read in place.
template <typename T, typename Body>
void for_each_piece(const InstanceNormActBackward& op, int64_t n, int64_t y,
                    float* folded,  // [width, channels]
                    const Body& body) {
  const int64_t c = op.channels(), pad = op.pad, w = op.width();
  const bool mirrored =
      padded_copy_of(1, y, op.height(), pad) >= 0 || padded_copy_of(2, y, op.height(), pad) >= 0;
  const int64_t edge = pad > 0 ? pad + 1 : 0;  // columns at either end that may have copies
  if (mirrored || 2 * edge >= w) {
    fold<T>(op, n, y, 0, w, folded);
    return body(0, w, static_cast<const float*>(folded));
  }
  const T* row =
      op.grad.as<const T>() + ((n * (op.height() + 2 * pad) + y + pad) * (w + 2 * pad) + pad) * c;
  if (edge > 0) {
    fold<T>(op, n, y, 0, edge, folded);
    body(0, edge, static_cast<const float*>(folded));
  }
  body(edge, w - 2 * edge, row + edge * c);
  if (edge > 0) {
    fold<T>(op, n, y, w - edge, w, folded);
    body(w - edge, edge, static_cast<const float*>(folded));
  }
}

// Sums of ga = gy act'(a) and of ga (x - mean) over rows [begin, end). Also writes the gradient of
// the residual.
template <typename T, typename Variant>
void band_sums(const InstanceNormActBackward& op, int64_t n, int64_t begin, int64_t end,
               int64_t period, float* __restrict__ scratch,  // see `backward`
               double* sum_ga,                               // [channels]
               double* sum_gax) {                            // [channels]
  const int64_t c = op.channels();
  Normalization norm(scratch, period);
  float* ga_lanes = scratch + Normalization::kArrays * period;
  float* gax_lanes = ga_lanes + period;
  double* ga_total = reinterpret_cast<double*>(gax_lanes + period);
  double* gax_total = ga_total + period;
  float* folded = reinterpret_cast<float*>(gax_total + period);
  const float negative_slope = op.negative_slope;
  if constexpr (Variant::kAffine) {
    norm.fill<Variant>(op, n, period);
  } else {  // the sign of x - mean is all that `gradient` needs
    repeat(op.mean.as<float>() + n * c, c, period, norm.mean);
  }
  for (int64_t i = 0; i < period; ++i) ga_total[i] = gax_total[i] = 0.;

  for (int64_t y = begin; y < end; ++y) {
    const int64_t row = (n * op.height() + y) * op.width();
    std::memset(ga_lanes, 0, 2 * period * sizeof(float));
    for_each_piece<T>(op, n, y, folded, [&](int64_t first, int64_t pixels, const auto* grad) {
      const T* x = op.x.as<const T>() + (row + first) * c;
      for_each_vector(pixels * c, period, [&](int64_t i, int64_t lane, auto count) {
        const Floats centred = load_unaligned(x + i, count) - load(norm.mean + lane);
        const Floats ga =
            norm.gradient<Variant>(centred, load_unaligned(grad + i, count), negative_slope, lane);
        store(ga_lanes + lane, load(ga_lanes + lane) + ga);
        store(gax_lanes + lane, load(gax_lanes + lane) + ga * centred);
      });
      if (op.grad_residual) {
        T* out = op.grad_residual.as<T>() + (row + first) * c;
        for_each_vector(pixels * c, period, [&](int64_t i, int64_t, auto count) {
          store_unaligned(out + i, load_unaligned(grad + i, count), count);
        });
      }
    });
    for (int64_t i = 0; i < period; ++i) {
      ga_total[i] += ga_lanes[i];
      gax_total[i] += gax_lanes[i];
    }
  }
  for (int64_t i = 0; i < c; ++i) {
    sum_ga[i] = sum_gax[i] = 0.;
    for (int64_t lane = i; lane < period; lane += c) {
      sum_ga[i] += ga_total[lane];
      sum_gax[i] += gax_total[lane];
    }
  }
}

// Adds up the bands: mean(gz) and rstd mean(gz z) of each image and group, written to each of the
// group's channels, and the gradients of weight and bias.
void combine_sums(const InstanceNormActBackward& op, const Bands& bands,
                  const double* sums_ga,   // [bands, C]
                  const double* sums_gax,  // [bands, C]
                  float* mean_gz,          // [N, C]
                  float* slope) {          // [N, C]
  const int64_t c = op.channels(), group_size = op.group_size();
  const double elements = static_cast<double>(group_size * op.height() * op.width());
  const float* weight = op.weight.as<const float>();
  const Buffer<double> affine(2 * c);
  double *grad_weight = affine.get(), *grad_bias = grad_weight + c;
  for (int64_t i = 0; i < 2 * c; ++i) affine[i] = 0.;
  for (int64_t n = 0; n < op.batch(); ++n) {
    for (int64_t first = 0; first < c; first += group_size) {
      const double rstd = op.rstd.as<float>()[n * c + first];
      double gz = 0., gzx = 0.;
      for (int64_t i = first; i < first + group_size; ++i) {
        double ga = 0., gax = 0.;
        for (int64_t band = n * bands.in_image; band < (n + 1) * bands.in_image; ++band) {
          ga += sums_ga[band * c + i];
          gax += sums_gax[band * c + i];
        }
        grad_bias[i] += ga;
        grad_weight[i] += gax * rstd;
        gz += weight != nullptr ? weight[i] * ga : ga;
        gzx += weight != nullptr ? weight[i] * gax : gax;
      }
      for (int64_t i = first; i < first + group_size; ++i) {
        mean_gz[n * c + i] = static_cast<float>(gz / elements);
        slope[n * c + i] = static_cast<float>(gzx / elements * rstd * rstd);
      }
    }
  }
  if (!op.grad_affine) return;
  for (int64_t i = 0; i < 2 * c; ++i) {
    op.grad_affine.as<float>()[i] = static_cast<float>(affine[i]);
  }
}

template <typename T, typename Variant>
void backward(const InstanceNormActBackward& op, int threads) {
  const int64_t c = op.channels(), period = period_of(c);
  const int64_t pixels = op.height() * op.width();
  const Bands bands(op.batch(), op.height());
  const int workers = worker_count(threads, bands.total);
  prefer_huge_pages(op.grad_x.data, op.batch() * pixels * c * sizeof(T));
  if (op.grad_residual) {
    prefer_huge_pages(op.grad_residual.data, op.batch() * pixels * c * sizeof(T));
  }

  // Normalization, float [2, period], double [2, period], then the folded gradient of a row
  constexpr int kFolded = Normalization::kArrays + 6;
  const int64_t scratch_size = round_up(kFolded * period + op.width() * c, 16);
  const Buffer<float> scratch(workers * scratch_size);
  const Buffer<double> sums_ga(bands.total * c), sums_gax(bands.total * c);
  bands.walk(workers, [&](int64_t band, int thread) {
    band_sums<T, Variant>(op, bands.image(band), bands.begin(band), bands.end(band), period,
                          scratch.get() + thread * scratch_size, sums_ga.get() + band * c,
                          sums_gax.get() + band * c);
  });
  const Buffer<float> mean_gz(op.batch() * c), slope(op.batch() * c);
  combine_sums(op, bands, sums_ga.get(), sums_gax.get(), mean_gz.get(), slope.get());
  bands.walk_back(workers, [&](int64_t band, int thread) {
    const int64_t n = bands.image(band);
    float* own = scratch.get() + thread * scratch_size;
    Normalization norm(own, period);
    float *offset = own + Normalization::kArrays * period, *factor = offset + period;
    float* folded = own + kFolded * period;
    const float negative_slope = op.negative_slope;
    norm.fill<Variant>(op, n, period);
    repeat(mean_gz.get() + n * c, c, period, offset);
    repeat(slope.get() + n * c, c, period, factor);
    for (int64_t y = bands.end(band) - 1; y >= bands.begin(band); --y) {
      const int64_t row = (n * op.height() + y) * op.width();
      for_each_piece<T>(op, n, y, folded, [&](int64_t first, int64_t pixels, const auto* grad) {
        const T* x = op.x.as<const T>() + (row + first) * c;
        T* out = op.grad_x.as<T>() + (row + first) * c;
        for_each_vector(pixels * c, period, [&](int64_t i, int64_t lane, auto count) {
          const Floats centred = load_unaligned(x + i, count) - load(norm.mean + lane);
          Floats gz = norm.gradient<Variant>(centred, load_unaligned(grad + i, count),
                                             negative_slope, lane);
          if constexpr (Variant::kAffine) gz *= load(norm.weight + lane);
          store_unaligned(out + i,
                          norm_gradient(gz, centred, load(norm.rstd + lane), load(offset + lane),
                                        load(factor + lane)),
                          count);
        });
      });
    }
  });
}

// Calls function(T{}, Variant{}) with the element type and the variant of these arguments.
template <typename Arguments, typename Function>
void dispatch(const Arguments& op, const Function& function) {
  with_float_type(op.x.type, [&](auto x) {
    with_norm_variant(op, [&](auto variant) { function(x, variant); });
  });
}

}  // namespace

// Both expect at least one pixel.
void instance_norm_act(const InstanceNormAct& op, int threads) {
  dispatch(op, [&](auto x, auto variant) { forward<decltype(x), decltype(variant)>(op, threads); });
}

void instance_norm_act_backward(const InstanceNormActBackward& op, int threads) {
  dispatch(op,
           [&](auto x, auto variant) { backward<decltype(x), decltype(variant)>(op, threads); });
}

}  // namespace GIOADA_ISA
}  // namespace gioada
