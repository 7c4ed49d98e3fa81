// Shared by all kernels: host/device qualifiers, 16-bit floats, labels, positions in bilinear
// resizing.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __F16C__
#include <immintrin.h>
#endif

#ifdef __CUDACC__
#define GIOADA_HD __host__ __device__ __forceinline__
#else
#define GIOADA_HD inline
#endif

// Members of a struct have the same name in the code of every instruction set. They are always
// inlined, so that the linker never merges those copies.
#ifdef __CUDACC__
#define GIOADA_MEMBER __host__ __device__ __forceinline__
#else
#define GIOADA_MEMBER __attribute__((always_inline)) inline
#endif

// CPU kernels are compiled once per instruction set. Functions in headers live in a namespace named
// after the set, so that the linker cannot merge them and run AVX-512 code on an older processor.
#ifndef GIOADA_ISA
#define GIOADA_ISA host
#endif

namespace gioada {

// One axis of a bilinear resize. Output point i lies at input position (i step + offset) / unit,
// clamped to [0, in - 1]. Cell k lies between input points k and k + 1, and every output point
// belongs to exactly one cell. Integer arithmetic: positions are exact, and the same on every back
// end. gioada_fast/ops/_bilinear.py makes the three integers from sizes, alignment and scale.
struct Axis {
  int64_t in, out;
  int64_t step;    // >= 0; 0 puts all points at the first input point
  int64_t offset;  // may be negative
  int64_t unit;    // > 0

  GIOADA_MEMBER int64_t cells() const { return in > 1 ? in - 1 : 1; }

  GIOADA_MEMBER int64_t cell_of(int64_t index) const {
    const int64_t position = index * step + offset;
    if (in == 1 || position <= 0) return 0;
    const int64_t cell = position / unit;
    return cell < in - 1 ? cell : in - 2;  // the last point closes the last cell
  }

  // Position of an output point in its cell, from 0 to 1: the weight of input point cell + 1. Input
  // point `cell` has weight 1 - frac.
  GIOADA_MEMBER float frac_of(int64_t index, int64_t cell) const {
    const int64_t rest = index * step + offset - cell * unit;
    if (in == 1 || rest <= 0) return 0.f;
    return rest < unit ? static_cast<float>(rest) / static_cast<float>(unit) : 1.f;
  }

  // First output point of a cell. For cell = cells(), this is `out`.
  GIOADA_MEMBER int64_t begin_of(int64_t cell) const {
    if (cell <= 0) return 0;
    if (cell >= cells() || step == 0) return out;
    const int64_t distance = cell * unit - offset;
    const int64_t index = distance > 0 ? (distance + step - 1) / step : 0;
    return index < out ? index : out;
  }
};

inline namespace GIOADA_ISA {

// The bits of a bfloat16: the high half of a float32.
struct bfloat16 {
  uint16_t bits;
};

GIOADA_HD float to_float(float value) { return value; }

GIOADA_HD float to_float(bfloat16 value) {
#ifdef __CUDA_ARCH__
  return __uint_as_float(static_cast<uint32_t>(value.bits) << 16);
#else
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
#endif
}

// Rounds to nearest, ties to even; NaN stays NaN.
GIOADA_HD bfloat16 to_bfloat16(float value) {
  uint32_t bits;
#ifdef __CUDA_ARCH__
  bits = __float_as_uint(value);
#else
  std::memcpy(&bits, &value, sizeof bits);
#endif
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return {static_cast<uint16_t>(nan ? (bits >> 16) | 0x40u : rounded)};
}

// The bits of an IEEE 754 half-precision number.
struct float16 {
  uint16_t bits;
};

// GPUs and most processors have instructions for both conversions. Elsewhere they shift the
// mantissa, and one floating-point operation treats subnormals.
GIOADA_HD float to_float(float16 value) {
#ifdef __CUDA_ARCH__
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
  return result;
#elif defined(__F16C__)
  return _cvtsh_ss(value.bits);
#else
  const uint32_t magnitude = static_cast<uint32_t>(value.bits & 0x7fffu) << 13;
  const uint32_t exponent = magnitude & 0x0f800000u;
  uint32_t bits = magnitude + 0x38000000u;           // exponent bias 127 in place of 15
  if (exponent == 0x0f800000u) bits += 0x38000000u;  // infinity, NaN
  float result;
  std::memcpy(&result, &bits, sizeof result);
  if (exponent == 0) {  // subnormal: an implicit 1 was assumed
    const uint32_t one = magnitude + 0x38800000u;
    std::memcpy(&result, &one, sizeof result);
    result -= 0x1p-14f;
  }
  return (value.bits & 0x8000u) ? -result : result;
#endif
}

// Rounds to nearest, ties to even; too large a value becomes infinity; NaN stays NaN.
GIOADA_HD float16 to_float16(float value) {
#ifdef __CUDA_ARCH__
  uint16_t result;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result) : "f"(value));
  return {result};
#elif defined(__F16C__)
  return {static_cast<uint16_t>(_cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT))};
#else
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  bits &= 0x7fffffffu;
  uint32_t result;
  if (bits >= 0x47800000u) {  // 2^16 or more, infinity, NaN
    result = bits > 0x7f800000u ? 0x7e00u : 0x7c00u;
  } else if (bits < 0x38800000u) {  // below 2^-14: rounded where 0.5 has its last bit
    float magnitude;
    std::memcpy(&magnitude, &bits, sizeof magnitude);
    magnitude += 0.5f;
    std::memcpy(&result, &magnitude, sizeof result);
    result -= 0x3f000000u;
  } else {
    result = (bits - 0x38000000u + 0xfffu + ((bits >> 13) & 1u)) >> 13;
  }
  return {static_cast<uint16_t>(result | sign)};
#endif
}

GIOADA_HD void convert(float value, float* out) { *out = value; }
GIOADA_HD void convert(float value, bfloat16* out) { *out = to_bfloat16(value); }
GIOADA_HD void convert(float value, float16* out) { *out = to_float16(value); }

// Codes in place of a class.
constexpr int kIgnored = -1, kOutOfRange = -2;

// Class of a pixel, kIgnored or kOutOfRange.
GIOADA_HD int class_of(int64_t label, int64_t ignore_index, int64_t classes) {
  if (label == ignore_index) return kIgnored;
  return label >= 0 && label < classes ? static_cast<int>(label) : kOutOfRange;
}

}  // namespace GIOADA_ISA
}  // namespace gioada
