// CPU kernels: the mean loss of each map, and the gradient of each logit. Maps are split into
// chunks, which depend only on the shapes, so the bits are the same for any number of threads.

#include "gan_loss.h"

#include <type_traits>

#include "cpu/parallel.h"
#include "cpu/simd.h"

namespace gioada {
inline namespace GIOADA_ISA {
namespace {

constexpr int64_t kChunk = 4096;  // logits
constexpr int kSums = 4;          // independent sums hide the latency of additions
// Logits of a map from which on several threads are used: below, waking a thread costs more.
constexpr int64_t kMinParallelLogits = 1 << 16;

// log(1 + e) for 0 <= e <= 1, as the power series of 2 atanh(e / (2 + e)): its relative error is
// small even for tiny e.
Floats log1p_of_exp(Floats e) {
  const Floats z = e / (2.f + e);
  const Floats q = z * z;
  Floats p = q * (1.f / 15) + 1.f / 13;
  p = p * q + 1.f / 11;
  p = p * q + 1.f / 9;
  p = p * q + 1.f / 7;
  p = p * q + 1.f / 5;
  p = p * q + 1.f / 3;
  p = p * q + 1.f;
  return 2.f * z * p;
}

Floats absolute(Floats x) { return (Floats)((Ints)x & 0x7fffffff); }

// Comparisons are written so that NaN stays NaN.
template <GanKind kKind>
Floats loss_of(Floats x, bool real) {
  const float s = real ? 1.f : -1.f;
  if (kKind == GanKind::lsgan) {
    const Floats error = x - (real ? 1.f : 0.f);
    return error * error;
  }
  if (kKind == GanKind::bce) {
    const Floats v = -s * x;
    return max(Floats{}, v) + log1p_of_exp(exp_nonpositive(-absolute(v)));
  }
  if (kKind == GanKind::hinge) {
    const Floats margin = 1.f - s * x;
    return margin < 0.f ? Floats{} : margin;
  }
  return -s * x;
}

template <GanKind kKind>
Floats gradient_of(Floats x, bool real) {
  const float s = real ? 1.f : -1.f;
  if (kKind == GanKind::lsgan) return 2.f * (x - (real ? 1.f : 0.f));
  if (kKind == GanKind::bce) {
    const Floats v = -s * x;
    const Floats e = exp_nonpositive(-absolute(v));
    return (v >= 0.f ? broadcast(-s) : -s * e) / (1.f + e);
  }
  if (kKind == GanKind::hinge) return 1.f - s * x <= 0.f ? Floats{} : broadcast(-s);
  return broadcast(-s);
}

template <GanKind kKind, typename T>
double sum_of_losses(const T* x, int64_t count, bool real) {
  Floats sums[kSums] = {};
  int64_t i = 0;
  for (; i + kSums * kLanes <= count; i += kSums * kLanes) {
#pragma GCC unroll 4
    for (int k = 0; k < kSums; ++k) {
      sums[k] += loss_of<kKind>(load_unaligned(x + i + k * kLanes), real);
    }
  }
  double total = 0.;
  for (; i < count; i += kLanes) {
    const int rest = count - i < kLanes ? static_cast<int>(count - i) : kLanes;
    const Floats loss = loss_of<kKind>(load_unaligned(x + i, rest), real);
    for (int lane = 0; lane < rest; ++lane) total += loss[lane];
  }
  const Floats sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  for (int lane = 0; lane < kLanes; ++lane) total += sum[lane];
  return total;
}

template <GanKind kKind, typename T>
void gradients(const T* x, int64_t count, bool real, float scale, T* grad) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    store_unaligned(grad + i, scale * gradient_of<kKind>(load_unaligned(x + i), real));
  }
  const int rest = static_cast<int>(count - i);
  store_unaligned(grad + i, scale * gradient_of<kKind>(load_unaligned(x + i, rest), real), rest);
}

template <GanKind kKind>
using Constant = std::integral_constant<GanKind, kKind>;

int64_t chunks_of(int64_t elements) { return (elements + kChunk - 1) / kChunk; }

int64_t chunks_of(const std::vector<TensorView>& maps) {
  int64_t chunks = 0;
  for (const TensorView& map : maps) chunks += chunks_of(map.elements());
  return chunks;
}

// Calls body(index of the chunk, map, first logit, number of logits) for all chunks of all maps.
template <typename Body>
void for_each_chunk(const std::vector<TensorView>& maps, int threads, const Body& body) {
  int64_t first = 0;  // index of the map's first chunk
  for (size_t map = 0; map < maps.size(); ++map) {
    const int64_t count = maps[map].elements();
    const int workers = count < kMinParallelLogits ? 1 : threads;
    parallel_for(chunks_of(count), workers, [&](int64_t i, int) {
      const int64_t begin = i * kChunk;
      body(first + i, map, begin, count - begin < kChunk ? count - begin : kChunk);
    });
    first += chunks_of(count);
  }
}

template <GanKind kKind, typename T>
void run_loss(const GanLoss& op, int threads) {
  const Buffer<double> sums(chunks_of(op.logits));
  for_each_chunk(op.logits, threads, [&](int64_t i, size_t map, int64_t begin, int64_t count) {
    const T* logits = op.logits[map].as<const T>() + begin;
    sums[i] = sum_of_losses<kKind>(logits, count, op.real[map]);
  });
  const double* next = sums.get();
  for (size_t map = 0; map < op.logits.size(); ++map) {
    const int64_t count = op.logits[map].elements();
    double total = 0.;
    for (int64_t i = chunks_of(count); i > 0; --i) total += *next++;
    op.loss.as<float>()[map] = count > 0 ? static_cast<float>(total / count) : 0.f;
  }
}

template <GanKind kKind, typename T>
void run_backward(const GanLossBackward& op, int threads) {
  for_each_chunk(op.logits, threads, [&](int64_t, size_t map, int64_t begin, int64_t count) {
    const T* logits = op.logits[map].as<const T>() + begin;
    const float scale =
        op.grad_loss.as<float>()[map] / static_cast<float>(op.logits[map].elements());
    gradients<kKind>(logits, count, op.real[map], scale, op.grad[map].as<T>() + begin);
  });
}

// Calls function(T{}, Constant<kind>{}): the logits' type T and the kind are compile-time
// constants.
template <typename Op, typename Function>
void dispatch(const Op& op, const Function& function) {
  const auto with_type = [&](auto kind) {
    with_float_type(op.logits[0].type, [&](auto logit) { function(logit, kind); });
  };
  switch (op.kind) {
    case GanKind::lsgan:
      return with_type(Constant<GanKind::lsgan>{});
    case GanKind::bce:
      return with_type(Constant<GanKind::bce>{});
    case GanKind::hinge:
      return with_type(Constant<GanKind::hinge>{});
    case GanKind::linear:
      return with_type(Constant<GanKind::linear>{});
  }
}

}  // namespace

void gan_loss(const GanLoss& op, int threads) {
  dispatch(op, [&](auto logit, auto kind) {
    run_loss<decltype(kind)::value, decltype(logit)>(op, threads);
  });
}

void gan_loss_backward(const GanLossBackward& op, int threads) {
  dispatch(op, [&](auto logit, auto kind) {
    run_backward<decltype(kind)::value, decltype(logit)>(op, threads);
  });
}

}  // namespace GIOADA_ISA
}  // namespace gioada
