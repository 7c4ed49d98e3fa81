// Vectors as wide as the instruction set's registers, based on the vector types of GCC and Clang.
#pragma once

#include "common.h"

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace gioada {
inline namespace GIOADA_ISA {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
constexpr int kVectorBytes = kLanes * sizeof(float);

typedef float Floats __attribute__((vector_size(kLanes * sizeof(float))));
typedef int32_t Ints __attribute__((vector_size(kLanes * sizeof(int32_t))));

static inline Floats load(const float* p) { return *reinterpret_cast<const Floats*>(p); }
static inline Ints load(const int32_t* p) { return *reinterpret_cast<const Ints*>(p); }
static inline void store(float* p, Floats value) { *reinterpret_cast<Floats*>(p) = value; }

typedef uint32_t Words __attribute__((vector_size(kLanes * sizeof(uint32_t))));
typedef uint8_t Bytes __attribute__((vector_size(kLanes)));
typedef uint16_t Halves __attribute__((vector_size(kLanes * sizeof(uint16_t))));

template <typename Vector>
static inline Vector load_bytes(const void* p, int64_t bytes) {
  Vector value = Vector{};
  if (bytes == sizeof value) {
    std::memcpy(&value, p, sizeof value);
  } else {
    std::memcpy(&value, p, bytes);
  }
  return value;
}

template <typename Vector>
static inline void store_bytes(void* p, Vector value, int64_t bytes) {
  if (bytes == sizeof value) {
    std::memcpy(p, &value, sizeof value);
  } else {
    std::memcpy(p, &value, bytes);
  }
}

// Loads the first `count` lanes from any address; the other lanes are 0.
static inline Bytes load_unaligned(const uint8_t* p, int64_t count = kLanes) {
  return load_bytes<Bytes>(p, count);
}

static inline Floats load_unaligned(const float* p, int64_t count = kLanes) {
  return load_bytes<Floats>(p, count * sizeof *p);
}

static inline Floats load_unaligned(const bfloat16* p, int64_t count = kLanes) {
  const Halves halves = load_bytes<Halves>(p, count * sizeof *p);
  return (Floats)(__builtin_convertvector(halves, Words) << 16);
}

static inline Floats load_unaligned(const float16* p, int64_t count = kLanes) {
  const Halves halves = load_bytes<Halves>(p, count * sizeof *p);
#if defined(__AVX512F__)
  return (Floats)_mm512_cvtph_ps((__m256i)halves);
#elif defined(__F16C__)
  return (Floats)_mm256_cvtph_ps((__m128i)halves);
#else
  Floats result;
  for (int lane = 0; lane < kLanes; ++lane) result[lane] = to_float(float16{halves[lane]});
  return result;
#endif
}

static inline void store_unaligned(float* p, Floats value, int64_t count = kLanes) {
  store_bytes(p, value, count * sizeof *p);
}

static inline void store_unaligned(bfloat16* p, Floats value, int64_t count = kLanes) {
  const Words bits = (Words)value;  // rounds as to_bfloat16
  const Words rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const Words result = value == value ? rounded : (bits >> 16) | 0x40;
  store_bytes(p, __builtin_convertvector(result, Halves), count * sizeof *p);
}

static inline void store_unaligned(float16* p, Floats value, int64_t count = kLanes) {
#if defined(__AVX512F__)
  const Halves halves = (Halves)_mm512_cvtps_ph((__m512)value, _MM_FROUND_TO_NEAREST_INT);
#elif defined(__F16C__)
  const Halves halves = (Halves)_mm256_cvtps_ph((__m256)value, _MM_FROUND_TO_NEAREST_INT);
#else
  Halves halves;
  for (int lane = 0; lane < kLanes; ++lane) halves[lane] = to_float16(value[lane]).bits;
#endif
  store_bytes(p, halves, count * sizeof *p);
}

// Asks for the cache lines of memory that is read or, for kWrite, written soon. Never faults.
template <bool kWrite = false>
static inline void prefetch(const void* p, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) {
    __builtin_prefetch(static_cast<const char*>(p) + i, kWrite);
  }
}

static inline Floats broadcast(float value) { return value - Floats{}; }
static inline Ints broadcast(int32_t value) { return value - Ints{}; }

// Maximum; `b` if either is NaN.
static inline Floats max(Floats a, Floats b) {
#if defined(__AVX512F__)
  return (Floats)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (Floats)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return a > b ? a : b;
#endif
}

// Minimum; `b` if either is NaN.
static inline Floats min(Floats a, Floats b) { return a < b ? a : b; }

// Whether any lane of a comparison's result is true.
static inline bool any(Ints mask) {
#if defined(__AVX512F__)
  return _mm512_movepi32_mask((__m512i)mask) != 0;
#elif defined(__AVX2__)
  return _mm256_movemask_ps((__m256)mask) != 0;
#else
  int32_t some = 0;
  for (int lane = 0; lane < kLanes; ++lane) some |= mask[lane];
  return some != 0;
#endif
}

// exp(x) for x <= 0, within 2 ulp; below -87 the result stays at exp(-87) = 1.6e-38; NaN stays NaN.
// Range reduction by Cody and Waite; minimax polynomial 1 + r + r^2 (...) on [-ln(2)/2, ln(2)/2]
// with a relative error of 3e-9. Estrin's scheme: half as many dependent operations as Horner's.
static inline Floats exp_nonpositive(Floats x) {
  x = max(broadcast(-87.f), x);
  // Adding 1.5 * 2^23 rounds to an integer in the low bits; 127 more makes it the exponent field.
  const float shift = 12582912.f + 127.f;
  const Floats shifted = x * 1.44269504088896341f + shift;
  const Floats power = shifted - shift;
  const Floats r = (x - power * 0.693359375f) + power * 2.12194440e-4f;
  const Floats square = r * r;
  const Floats p01 = r + 1.f;
  const Floats p23 = r * 1.66665205e-1f + 4.99999934e-1f;
  const Floats p45 = r * 8.36872379e-3f + 4.16683889e-2f;
  Floats p = square * 1.38145712e-3f + p45;
  p = p * square + p23;
  p = p * square + p01;
  return p * (Floats)((Ints)shifted << 23);
}

// log(x) for normal x > 0, within 2 ulp; NaN and infinity give NaN. Polynomial of Cephes (logf).
static inline Floats log_positive(Floats x) {
  const Ints bits = (Ints)x;
  const Ints exponent = (bits - 0x3f3504f3) >> 23;  // of x / sqrt(1/2)
  const Floats r = (Floats)(bits - (exponent << 23)) - 1.f;
  const Floats e = __builtin_convertvector(exponent, Floats);
  Floats p = r * 7.0376836292e-2f - 1.1514610310e-1f;
  p = p * r + 1.1676998740e-1f;
  p = p * r - 1.2420140846e-1f;
  p = p * r + 1.4249322787e-1f;
  p = p * r - 1.6668057665e-1f;
  p = p * r + 2.0000714765e-1f;
  p = p * r - 2.4999993993e-1f;
  p = p * r + 3.3333331174e-1f;
  const Floats square = r * r;
  p = p * square * r - e * 2.12194440e-4f - 0.5f * square;
  return (r + p) + (e * 0.693359375f + (x - x));
}

}  // namespace GIOADA_ISA
}  // namespace gioada
