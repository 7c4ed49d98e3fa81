// Transposes between planes [channels, kLanes], with one vector per channel, and pixels [kLanes,
// channels], whose channels are adjacent as in channels-last tensors.
#pragma once

#include <utility>

#include "cpu/simd.h"

namespace gioada {
inline namespace GIOADA_ISA {

// One step of the transpose below. Exchanges the lanes of `a` that have bit kStep set with the
// lanes of `b` that do not.
template <int kStep, int... kLane>
static inline void exchange(Floats& a, Floats& b, std::integer_sequence<int, kLane...>) {
#if defined(__clang__)
  const Floats lo =
      __builtin_shufflevector(a, b, (kLane & kStep ? kLanes + kLane - kStep : kLane)...);
  b = __builtin_shufflevector(a, b, (kLane & kStep ? kLanes + kLane : kLane + kStep)...);
#else
  const Floats lo =
      __builtin_shuffle(a, b, Ints{(kLane & kStep ? kLanes + kLane - kStep : kLane)...});
  b = __builtin_shuffle(a, b, Ints{(kLane & kStep ? kLanes + kLane : kLane + kStep)...});
#endif
  a = lo;
}

template <int kStep = 1>
static inline void transpose(Floats (&v)[kLanes]) {
  if constexpr (kStep < kLanes) {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) {
      if (i & kStep) continue;
      exchange<kStep>(v[i], v[i + kStep], std::make_integer_sequence<int, kLanes>());
    }
    transpose<2 * kStep>(v);
  }
}

// At most this many channels after the last whole vector are copied one by one.
constexpr int64_t kFewChannels = kLanes / 4;

// Number of channels that are transposed in vectors; the others are copied one by one.
static inline int64_t in_vectors(int64_t channels) {
  const int64_t rest = channels % kLanes;
  return rest <= kFewChannels ? channels - rest : channels - rest + kLanes;
}

// Whether to_pixels and to_planes stay inside the row if `pixels` of it are left. Their last vector
// may reach beyond kLanes pixels.
static inline bool has_room_for_strip(int64_t pixels, int64_t channels) {
  return pixels >= kLanes && (pixels - kLanes) * channels >= in_vectors(channels) - channels;
}

// [channels, kLanes] to [kLanes, channels]. Multiplies the first `scaled` channels by `scale`.
// Reads and writes whole vectors, so both need room for round_up(channels, kLanes) channels.
template <typename T>
static inline void to_pixels(const float* planes, int64_t channels, int64_t scaled, Floats scale,
                             T* pixels) {
  const int64_t whole = in_vectors(channels);
  // The last store of a pixel spills into the next pixel, which is written afterwards.
  for (int64_t c = whole - kLanes; c >= 0; c -= kLanes) {
    Floats v[kLanes];
    if (c + kLanes <= scaled) {
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) v[i] = load(planes + (c + i) * kLanes) * scale;
    } else {
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        v[i] = load(planes + (c + i) * kLanes);
        if (c + i < scaled) v[i] *= scale;
      }
    }
    transpose(v);
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) store_unaligned(pixels + i * channels + c, v[i]);
  }
  for (int64_t c = whole; c < channels; ++c) {
    Floats v = load(planes + c * kLanes);
    if (c < scaled) v *= scale;
    for (int i = 0; i < kLanes; ++i) convert(v[i], pixels + i * channels + c);
  }
}

// [kLanes, channels] to [channels, kLanes]: the inverse of to_pixels.
template <typename T>
static inline void to_planes(const T* pixels, int64_t channels, float* planes) {
  const int64_t whole = in_vectors(channels);
  for (int64_t c = 0; c < whole; c += kLanes) {
    Floats v[kLanes];
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) v[i] = load_unaligned(pixels + i * channels + c);
    transpose(v);
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) store(planes + (c + i) * kLanes, v[i]);
  }
  for (int64_t c = whole; c < channels; ++c) {
    for (int i = 0; i < kLanes; ++i) planes[c * kLanes + i] = to_float(pixels[i * channels + c]);
  }
}

}  // namespace GIOADA_ISA
}  // namespace gioada
