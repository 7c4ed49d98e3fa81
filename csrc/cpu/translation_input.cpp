// CPU kernel: clears a stretch of pixels that fits into the cache, then writes five values per
// pixel: the image's three channels, depth, and 1 in the channel of the class.

#include "translation_input.h"

#include "cpu/parallel.h"

namespace gioada {
inline namespace GIOADA_ISA {
namespace {

constexpr int64_t kStretchBytes = 8192;

template <typename T, typename Depth, typename Label>
void fill_row(const TranslationInput& op, int64_t n, int64_t y,
              const T* normalised_values) {  // [256] one per byte value
  const int64_t channels = op.channels();
  const int64_t pixel_bytes = channels * sizeof(T);
  const int64_t stretch = pixel_bytes < kStretchBytes ? kStretchBytes / pixel_bytes : 1;
  const int64_t image_step = op.image.strides[3], depth_step = op.depth.strides[3];
  const uint8_t* red =
      op.image.as<const uint8_t>() + n * op.image.strides[0] + y * op.image.strides[2];
  const uint8_t* green = red + op.image.strides[1];
  const uint8_t* blue = green + op.image.strides[1];
  const Depth* depth =
      op.depth.as<const Depth>() + n * op.depth.strides[0] + y * op.depth.strides[2];
  const Label* labels = op.labels.as<const Label>() + (n * op.height() + y) * op.width();
  T* out = op.out.as<T>() + (n * op.height() + y) * op.width() * channels;
  T one;
  convert(1.f, &one);
  const uint64_t classes = channels - kFirstClassChannel;
  const int64_t width = op.width();
  for (int64_t begin = 0; begin < width; begin += stretch) {
    const int64_t end = begin + stretch < width ? begin + stretch : width;
    std::memset(static_cast<void*>(out + begin * channels), 0, (end - begin) * pixel_bytes);
    for (int64_t x = begin; x < end; ++x) {
      T* pixel = out + x * channels;
      const uint64_t label = static_cast<uint64_t>(static_cast<int64_t>(labels[x]));
      const bool has_class = label < classes;
      // Branchless: a pixel without class writes to the depth channel, which is overwritten below.
      pixel[has_class ? kFirstClassChannel + label : kDepthChannel] = one;
      pixel[0] = normalised_values[red[x * image_step]];
      pixel[1] = normalised_values[green[x * image_step]];
      pixel[2] = normalised_values[blue[x * image_step]];
      convert(to_float(depth[x * depth_step]), pixel + kDepthChannel);
    }
  }
}

template <typename T, typename Depth, typename Label>
void run(const TranslationInput& op, int threads) {
  T normalised_values[256];
  for (int value = 0; value < 256; ++value) {
    convert(normalised(static_cast<uint8_t>(value)), &normalised_values[value]);
  }
  prefer_huge_pages(op.out.data, op.out.elements() * static_cast<int64_t>(sizeof(T)));
  parallel_ranges(op.batch() * op.height(), threads, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      fill_row<T, Depth, Label>(op, row / op.height(), row % op.height(), normalised_values);
    }
  });
}

}  // namespace

void translation_input(const TranslationInput& op, int threads) {
  with_float_type(op.out.type, [&](auto out) {
    with_float_type(op.depth.type, [&](auto depth) {
      with_label_type(op.labels.type, [&](auto label) {
        run<decltype(out), decltype(depth), decltype(label)>(op, threads);
      });
    });
  });
}

}  // namespace GIOADA_ISA
}  // namespace gioada
