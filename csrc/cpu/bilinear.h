// Bilinear resizing of an input row to strips of kLanes pixel columns, and
// its transpose. A pixel row between two resized input rows costs one fused multiply-add per class
// and vector.
#pragma once

#include "cpu/parallel.h"
#include "cpu/simd.h"

namespace gioada {
inline namespace GIOADA_ISA {

// A strip of kLanes pixel columns and the input columns it touches.
struct Strip {
  int64_t first;     // first input column
  int64_t span;      // number of input columns
  float* to_pixels;  // [span, kLanes] weight of an input column in a pixel column
  float* to_inputs;  // [kLanes, round_up(span, kLanes)] the transpose
};

// All strips of a row. They are the same for every row and image, so a kernel builds them once.
class Strips {
 public:
  explicit Strips(const Axis& axis)
      : count_((axis.out + kLanes - 1) / kLanes), strips_(count_), weights_(size_of(axis)) {
    float* next = weights_.get();
    for (int64_t s = 0; s < count_; ++s) {
      const int64_t begin = s * kLanes;
      const int64_t end = begin + kLanes < axis.out ? begin + kLanes : axis.out;
      Strip& strip = strips_[s];
      strip.first = axis.cell_of(begin);
      strip.span = span_of(begin, end, axis);
      const int64_t padded = round_up(strip.span, kLanes);
      strip.to_pixels = next;
      strip.to_inputs = next + strip.span * kLanes;
      next += (strip.span + padded) * kLanes;
      for (float* p = strip.to_pixels; p != next; ++p) *p = 0.f;  // lanes beyond the image stay 0
      for (int64_t x = begin; x < end; ++x) {
        const int64_t lane = x - begin;
        const int64_t cell = axis.cell_of(x);
        const float frac_x = axis.frac_of(x, cell);
        const int64_t column = cell - strip.first;
        strip.to_pixels[column * kLanes + lane] = 1.f - frac_x;
        strip.to_inputs[lane * padded + column] = 1.f - frac_x;
        if (column + 1 < strip.span) {
          strip.to_pixels[(column + 1) * kLanes + lane] = frac_x;
          strip.to_inputs[lane * padded + column + 1] = frac_x;
        }
      }
    }
  }

  int64_t count() const { return count_; }
  const Strip& operator[](int64_t s) const { return strips_[s]; }

 private:
  static int64_t span_of(int64_t begin, int64_t end, const Axis& axis) {
    const int64_t last = axis.cell_of(end - 1) + 1;
    return (last < axis.in ? last : axis.in - 1) - axis.cell_of(begin) + 1;
  }

  static int64_t size_of(const Axis& axis) {
    int64_t size = 0;
    for (int64_t begin = 0; begin < axis.out; begin += kLanes) {
      const int64_t end = begin + kLanes < axis.out ? begin + kLanes : axis.out;
      const int64_t span = span_of(begin, end, axis);
      size += (span + round_up(span, kLanes)) * kLanes;
    }
    return size;
  }

  int64_t count_;
  Buffer<Strip> strips_;
  Buffer<float> weights_;
};

// Interpolates one input row to the pixel columns of a strip.
template <typename T>
static inline void interpolate(const T* row,  // class 0, column 0 of an input row
                               int64_t class_stride, int64_t column_stride, int64_t classes,
                               const Strip& strip,
                               float* out) {  // [classes, kLanes]
  row += strip.first * column_stride;
  for (int64_t c = 0; c < classes; ++c) {
    const T* p = row + c * class_stride;
    Floats sum = to_float(p[0]) * load(strip.to_pixels);
    for (int64_t i = 1; i < strip.span; ++i) {
      sum += to_float(p[i * column_stride]) * load(strip.to_pixels + i * kLanes);
    }
    store(out + c * kLanes, sum);
  }
}

// The transpose of `interpolate`: adds the gradient of pixel columns to input columns. Writes whole
// vectors, so a row needs kLanes floats of padding.
static inline void scatter(const float* grad,  // [classes, kLanes]
                           int64_t classes, const Strip& strip,
                           float* row,  // [classes, class_stride], an input row
                           int64_t class_stride) {
  const int64_t padded = round_up(strip.span, kLanes);
  for (int64_t c = 0; c < classes; ++c) {
    float* out = row + c * class_stride + strip.first;
    const float* g = grad + c * kLanes;
    for (int64_t i = 0; i < padded; i += kLanes) {
      const float* weights = strip.to_inputs + i;
      Floats even = g[0] * load(weights), odd = g[1] * load(weights + padded);
      for (int lane = 2; lane < kLanes; lane += 2) {
        even += g[lane] * load(weights + lane * padded);
        odd += g[lane + 1] * load(weights + (lane + 1) * padded);
      }
      Floats sum;
      std::memcpy(&sum, out + i, sizeof sum);
      sum += even + odd;
      std::memcpy(out + i, &sum, sizeof sum);
    }
  }
}

}  // namespace GIOADA_ISA
}  // namespace gioada
