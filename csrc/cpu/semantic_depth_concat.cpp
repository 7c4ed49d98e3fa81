// CPU kernels: both directions process strips of kLanes pixel columns from top to bottom, with one
// vector per channel. Each input row is interpolated horizontally once; a pixel row between two
// input rows then costs one fused multiply-add per channel. Softmax runs over classes, so lanes
// never mix. A transpose in registers converts planes of channels to channels-last pixels, and
// channels-last gradients to planes.
//
// Forward: a task is a few pixel rows. Backward: a task is a band of cells. It recomputes the
// probabilities, accumulates the gradient in two vectors per channel, for the input rows above and
// below, and scatters them to input columns once per input row. At the end, the two parts of a row
// that two bands share are added.

#include "semantic_depth_concat.h"

#include <algorithm>

#include "cpu/bands.h"
#include "cpu/bilinear.h"
#include "cpu/transpose.h"

namespace gioada {
inline namespace GIOADA_ISA {
namespace {

constexpr int64_t kTaskRows = 8;  // pixel rows of a forward task
constexpr int64_t kStrips = 4;    // side by side in the forward, for longer runs of stores

// Two input rows, interpolated to the pixel columns of a strip.
struct Cell {
  float *above, *below, *step;  // [channels, kLanes]; step = below - above
};

// Value of channel i / kLanes in a pixel row.
inline Floats value(const Cell& cell, float frac_y, int64_t i) {
  return load(cell.above + i) + frac_y * load(cell.step + i);
}

// Calls body(i, e) for all channels i / kLanes of the classes, with e = exp(z - max z) in a pixel
// row. To compute z twice takes less time than to store it.
template <typename Body>
inline void for_each_exponential(int64_t classes, const Cell& cell, float frac_y,
                                 const Body& body) {
  Floats largest = value(cell, frac_y, 0);
  for (int64_t i = kLanes; i < classes * kLanes; i += kLanes) {
    largest = max(largest, value(cell, frac_y, i));
  }
  for (int64_t i = 0; i < classes * kLanes; i += kLanes) {
    body(i, exp_nonpositive(value(cell, frac_y, i) - largest));
  }
}

inline void fill_step(int64_t channels, const Cell& cell) {
  for (int64_t i = 0; i < channels * kLanes; i += kLanes) {
    store(cell.step + i, load(cell.below + i) - load(cell.above + i));
  }
}

// Computes pixel rows [begin, end) of image n.
template <typename T>
void forward_rows(const SemanticDepthConcat& op, const Strips& strips, int64_t n, int64_t begin,
                  int64_t end,
                  float* scratch) {  // [3 * kStrips + 3, padded channels, kLanes]
  const int64_t h = op.in_height(), classes = op.classes(), depth_at = classes * kLanes;
  const int64_t channels = op.channels();
  const int64_t tile = round_up(channels, kLanes) * kLanes;
  Cell cells[kStrips];
  for (int64_t i = 0; i < kStrips; ++i) {
    cells[i] = {scratch, scratch + tile, scratch + 2 * tile};
    scratch += 3 * tile;
  }
  float* planes = scratch;
  T* pixels = reinterpret_cast<T*>(scratch + tile);

  const int64_t *ls = op.logits.strides, *ds = op.depth.strides;
  const auto interpolate_row = [&](int64_t row, const Strip& strip, float* out) {
    const T* logits = op.logits.as<const T>() + n * ls[0] + row * ls[2];
    interpolate(logits, ls[1], ls[3], classes, strip, out);
    if (!op.depth) return;
    const T* depth = op.depth.as<const T>() + n * ds[0] + row * ds[2];
    interpolate(depth, ds[1], ds[3], 1, strip, out + depth_at);
  };
  for (int64_t first = 0; first < strips.count(); first += kStrips) {
    const int64_t last = std::min(first + kStrips, strips.count());
    int64_t row = -2;  // the input row above
    for (int64_t y = begin; y < end; ++y) {
      const int64_t before = row;
      row = op.rows.cell_of(y);
      const float frac_y = op.rows.frac_of(y, row);
      for (int64_t s = first; s < last; ++s) {
        Cell& cell = cells[s - first];
        if (row != before) {
          std::swap(cell.above, cell.below);
          if (row != before + 1) interpolate_row(row, strips[s], cell.above);
          interpolate_row(std::min(row + 1, h - 1), strips[s], cell.below);
          fill_step(channels, cell);
        }
        Floats sum = Floats{};
        for_each_exponential(classes, cell, frac_y, [&](int64_t i, Floats e) {
          store(planes + i, e);
          sum += e;
        });
        if (op.depth) store(planes + depth_at, value(cell, frac_y, depth_at));
        const int64_t x = s * kLanes, count = std::min<int64_t>(kLanes, op.width() - x);
        T* out = op.out.as<T>() + ((n * op.height() + y) * op.width() + x) * channels;
        // The next row of the strip is far away in memory: hardware does not foresee it.
        prefetch<true>(out + op.width() * channels, count * channels * sizeof(T));
        if (x + kLanes < op.width()) {
          to_pixels(planes, channels, classes, 1.f / sum, out);
        } else {  // writes nothing beyond the row
          to_pixels(planes, channels, classes, 1.f / sum, pixels);
          std::memcpy(out, pixels, count * channels * sizeof(T));
        }
      }
    }
  }
}

template <typename T>
void run(const SemanticDepthConcat& op, int threads) {
  const int64_t channels = op.channels();
  const int64_t parts = (op.height() + kTaskRows - 1) / kTaskRows;  // tasks per image
  const int64_t tasks = op.batch() * parts;
  const int workers = worker_count(threads, tasks);
  const int64_t scratch_size = (3 * kStrips + 3) * round_up(channels, kLanes) * kLanes;
  const Strips strips(op.columns);
  const Buffer<float> memory(workers * scratch_size);
  prefer_huge_pages(op.out.data, op.batch() * op.height() * op.width() * channels * sizeof(T));
  // Threads start far apart, because two that fault in the same new page would both clear it.
  const int64_t apart = (tasks + workers - 1) / workers;
  parallel_for(apart * workers, workers, [&](int64_t i, int thread) {
    const int64_t task = i % workers * apart + i / workers;
    if (task >= tasks) return;
    const int64_t begin = task % parts * kTaskRows;
    forward_rows<T>(op, strips, task / parts, begin, std::min(begin + kTaskRows, op.height()),
                    memory.get() + thread * scratch_size);
  });
}

// Working memory of one thread in the backward. `channels` are those whose gradient is needed: the
// classes or none of them, then depth if there is any.
struct Scratch {
  Cell cell;                       // [classes, kLanes]
  float* exps;                     // [classes, kLanes]
  float* planes;                   // [channels, kLanes] incoming gradient
  float* pixels;                   // [kLanes, channels] incoming gradient, before the transpose
  float *grad_above, *grad_below;  // [channels, kLanes]
};

// Copies the incoming gradient of `count` pixels, the first of them at p, to s.planes. Other lanes
// get 0. `last`: there may be no memory after these pixels.
template <typename T>
inline void read_gradient(const T* p, int64_t channel_stride, int64_t row_stride,
                          int64_t pixel_stride, int64_t channels, int64_t count, bool last,
                          const Scratch& s) {
  if (channel_stride == 1 && pixel_stride == channels) {
    prefetch(p + row_stride, count * channels * sizeof(T));
    if (last) {
      T* pixels = reinterpret_cast<T*>(s.pixels);
      std::memcpy(pixels, p, count * channels * sizeof(T));
      std::memset(pixels + count * channels, 0, (kLanes - count) * channels * sizeof(T));
      p = pixels;
    }
    to_planes(p, channels, s.planes);
    return;
  }
  for (int64_t c = 0; c < channels; ++c) {
    const T* from = p + c * channel_stride;
    float* to = s.planes + c * kLanes;
    for (int64_t i = 0; i < count; ++i) to[i] = to_float(from[i * pixel_stride]);
    for (int64_t i = count; i < kLanes; ++i) to[i] = 0.f;
  }
}

// One pixel row of a strip: adds to the gradients of the input rows above and below.
inline void pixel_row(int64_t classes, int64_t channels, float frac_y, const Scratch& s) {
  const auto add = [&](int64_t i, Floats g) {
    store(s.grad_above + i, load(s.grad_above + i) + (1.f - frac_y) * g);
    store(s.grad_below + i, load(s.grad_below + i) + frac_y * g);
  };
  if (classes > 0) {
    Floats sum = Floats{}, mean = Floats{};
    for_each_exponential(classes, s.cell, frac_y, [&](int64_t i, Floats e) {
      store(s.exps + i, e);
      sum += e;
      mean += e * load(s.planes + i);
    });
    const Floats scale = 1.f / sum;
    mean *= scale;
    for (int64_t i = 0; i < classes * kLanes; i += kLanes) {
      add(i, softmax_gradient<Floats>(load(s.exps + i) * scale, load(s.planes + i), mean));
    }
  }
  for (int64_t i = classes * kLanes; i < channels * kLanes; i += kLanes) add(i, load(s.planes + i));
}

// Backward of rows of cells [first, last) of image n. Writes the gradient of input rows [first,
// last] to `rows`.
template <typename T>
void backward_band(const SemanticDepthConcatBackward& op, const Strips& strips, int64_t classes,
                   int64_t channels, int64_t n, int64_t first, int64_t last, Scratch s,
                   float* rows) {  // [last - first + 1, channels, padded input width]
  const int64_t h = op.in_height(), row_stride = op.in_width() + kLanes;
  const int64_t row_size = channels * row_stride, tile = channels * kLanes;
  const int64_t *ls = op.logits.strides, *gs = op.grad.strides;
  const T* grad = op.grad.as<const T>() + n * gs[0] + (op.channels() - channels) * gs[1];
  const auto interpolate_row = [&](int64_t row, const Strip& strip, float* out) {
    const T* logits = op.logits.as<const T>() + n * ls[0] + row * ls[2];
    interpolate(logits, ls[1], ls[3], classes, strip, out);
  };
  std::memset(rows, 0, (last - first + 1) * row_size * sizeof(float));
  for (int64_t i = 0; i < strips.count(); ++i) {
    const Strip& strip = strips[i];
    const int64_t x = i * kLanes, count = std::min<int64_t>(kLanes, op.width() - x);
    interpolate_row(first, strip, s.cell.above);
    std::memset(s.grad_above, 0, tile * sizeof(float));
    for (int64_t cell = first; cell < last; ++cell) {
      interpolate_row(std::min(cell + 1, h - 1), strip, s.cell.below);
      fill_step(classes, s.cell);
      std::memset(s.grad_below, 0, tile * sizeof(float));
      const int64_t y_end = op.rows.begin_of(cell + 1);
      for (int64_t y = op.rows.begin_of(cell); y < y_end; ++y) {
        read_gradient(grad + y * gs[2] + x * gs[3], gs[1], gs[2], gs[3], channels, count,
                      i + 1 == strips.count(), s);
        pixel_row(classes, channels, op.rows.frac_of(y, cell), s);
      }
      scatter(s.grad_above, channels, strip, rows + (cell - first) * row_size, row_stride);
      std::swap(s.grad_above, s.grad_below);
      std::swap(s.cell.above, s.cell.below);
    }
    scatter(s.grad_above, channels, strip, rows + (last - first) * row_size, row_stride);
  }
}

template <typename T>
void run(const SemanticDepthConcatBackward& op, int threads) {
  const int64_t h = op.in_height(), w = op.in_width(), row_stride = w + kLanes;
  const int64_t classes = op.grad_logits ? op.classes() : 0;
  const int64_t channels = op.channels() - op.classes() + classes;
  const Bands bands(op.batch(), op.rows.cells());
  const int64_t row_size = channels * row_stride;
  const int64_t band_size = (bands.band_rows + 1) * row_size;

  const int64_t tile = round_up(channels, kLanes) * kLanes;
  const int64_t scratch_size = 9 * tile;
  const int workers = worker_count(threads, bands.total);
  const Strips strips(op.columns);
  const Buffer<float> memory(workers * scratch_size);
  const Buffer<float> rows(bands.total * band_size);
  parallel_for(bands.total, workers, [&](int64_t band, int thread) {
    float* p = memory.get() + thread * scratch_size;
    const Scratch s = {{p, p + tile, p + 2 * tile},
                       p + 3 * tile,
                       p + 4 * tile,
                       p + 7 * tile,
                       p + 5 * tile,
                       p + 6 * tile};
    backward_band<T>(op, strips, classes, channels, bands.image(band), bands.begin(band),
                     bands.end(band), s, rows.get() + band * band_size);
  });

  // Copies the gradient of each input row to the results. The first row of a band is also the last
  // row of the band before: adds both parts.
  parallel_for(op.batch() * h, threads, [&](int64_t task, int) {
    const int64_t n = task / h, y = task % h;
    const int64_t band = n * bands.in_image + std::min(y / bands.band_rows, bands.in_image - 1);
    const int64_t row = y - bands.begin(band);
    float* from = rows.get() + band * band_size + row * row_size;
    if (row == 0 && y > 0) {
      const float* shared = from - row_size;
      for (int64_t i = 0; i < row_size; ++i) from[i] += shared[i];
    }
    if (op.grad_logits) {
      float* to = op.grad_logits.as<float>() + task * w * classes;
      for (int64_t x = 0; x < w; ++x) {
        for (int64_t c = 0; c < classes; ++c) to[x * classes + c] = from[c * row_stride + x];
      }
    }
    if (op.grad_depth) {
      std::memcpy(op.grad_depth.as<float>() + task * w, from + classes * row_stride,
                  w * sizeof(float));
    }
  });
}

}  // namespace

// Both expect at least one pixel.
void semantic_depth_concat(const SemanticDepthConcat& op, int threads) {
  with_float_type(op.logits.type, [&](auto logit) { run<decltype(logit)>(op, threads); });
}

void semantic_depth_concat_backward(const SemanticDepthConcatBackward& op, int threads) {
  with_float_type(op.logits.type, [&](auto logit) { run<decltype(logit)>(op, threads); });
}

}  // namespace GIOADA_ISA
}  // namespace gioada
