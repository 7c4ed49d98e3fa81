// Shared by all kernels: host/device qualifier, bfloat16, labels, positions in bilinear resizing.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define GIOADA_HD __host__ __device__ __forceinline__
#else
#define GIOADA_HD inline
#endif

// CPU kernels are compiled once per instruction set. Functions in headers live in a namespace named
// after the set, so that the linker cannot merge them and run AVX-512 code on an older processor.
#ifndef GIOADA_ISA
#define GIOADA_ISA host
#endif

namespace gioada {

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

GIOADA_HD void convert(float value, float* out) { *out = value; }
GIOADA_HD void convert(float value, bfloat16* out) { *out = to_bfloat16(value); }

// Codes in place of a class.
constexpr int kIgnored = -1, kOutOfRange = -2;

// Class of a pixel, kIgnored or kOutOfRange.
GIOADA_HD int class_of(int64_t label, int64_t ignore_index, int64_t classes) {
  if (label == ignore_index) return kIgnored;
  return label >= 0 && label < classes ? static_cast<int>(label) : kOutOfRange;
}

// Bilinear resizing of `in` to `out` points with align_corners = True, as cells: cell k lies
// between input points k and k + 1, and every output point belongs to exactly one cell. Integer
// arithmetic: positions are exact, and the same on every back end.

GIOADA_HD int64_t cell_count(int64_t in) { return in > 1 ? in - 1 : 1; }

GIOADA_HD int64_t cell_of(int64_t index, int64_t in, int64_t out) {
  if (in == 1 || out == 1) return 0;
  const int64_t cell = index * (in - 1) / (out - 1);
  return cell < in - 1 ? cell : in - 2;  // the last point closes the last cell
}

// Position of an output point in its cell, from 0 to 1: the weight of input point cell + 1. Input
// point `cell` has weight 1 - frac.
GIOADA_HD float frac_of(int64_t index, int64_t cell, int64_t in, int64_t out) {
  if (in == 1 || out == 1) return 0.f;
  const int64_t rest = index * (in - 1) - cell * (out - 1);
  return static_cast<float>(rest) / static_cast<float>(out - 1);
}

// First output point of a cell. For cell = cell_count(in), this is `out`.
GIOADA_HD int64_t cell_begin(int64_t cell, int64_t in, int64_t out) {
  if (cell <= 0) return 0;
  if (cell >= cell_count(in)) return out;
  if (out == 1) return out;  // the only point lies in cell 0
  return (cell * (out - 1) + in - 2) / (in - 1);
}

}  // namespace GIOADA_ISA
}  // namespace gioada
