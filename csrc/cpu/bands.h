// Splits the images of a batch into bands of rows, the tasks of the CPU kernels. Bands depend only
// on the shape, so the order of sums, and with it every bit, is the same for any number of threads.
#pragma once

#include "cpu/parallel.h"

namespace gioada {
inline namespace GIOADA_ISA {

constexpr int64_t kTargetBands = 32;  // in a batch: enough to keep many cores busy

// The kernel decides whether rows are pixel rows or rows of cells.
struct Bands {
  int64_t rows;       // per image
  int64_t band_rows;  // per band; the last band of an image may have fewer
  int64_t in_image;   // bands per image
  int64_t total;      // bands in the batch

  Bands(int64_t batch, int64_t image_rows) : rows(image_rows) {
    const int64_t target = (kTargetBands + batch - 1) / batch;
    band_rows = (rows + target - 1) / target;
    in_image = (rows + band_rows - 1) / band_rows;
    total = batch * in_image;
  }
  int64_t image(int64_t band) const { return band / in_image; }
  int64_t begin(int64_t band) const { return band % in_image * band_rows; }
  int64_t end(int64_t band) const {
    return begin(band) + band_rows < rows ? begin(band) + band_rows : rows;
  }
  bool is_last(int64_t band) const { return end(band) == rows; }

  // Calls body(band, thread) for all bands. Each thread owns a contiguous range, which also keeps
  // two threads from faulting in one huge page.
  template <typename Body>
  void walk(int threads, const Body& body) const {
    parallel_ranges(total, threads, [&](int64_t first, int64_t last, int thread) {
      for (int64_t band = first; band < last; ++band) body(band, thread);
    });
  }

  // As walk, but traverses each range backwards: the thread starts with the band that it read last
  // in the pass before, while that band may still be in its cache.
  template <typename Body>
  void walk_back(int threads, const Body& body) const {
    parallel_ranges(total, threads, [&](int64_t first, int64_t last, int thread) {
      for (int64_t band = last - 1; band >= first; --band) body(band, thread);
    });
  }
};

// Bands of rows of cells, for an image whose rows are resized as `axis` says.
struct CellBands : Bands {
  int64_t max_pixel_rows;  // in one band

  CellBands(int64_t batch, const Axis& axis) : Bands(batch, axis.cells()), max_pixel_rows(0) {
    for (int64_t band = 0; band < in_image; ++band) {
      const int64_t pixel_rows = axis.begin_of(end(band)) - axis.begin_of(begin(band));
      if (pixel_rows > max_pixel_rows) max_pixel_rows = pixel_rows;
    }
  }
};

}  // namespace GIOADA_ISA
}  // namespace gioada
