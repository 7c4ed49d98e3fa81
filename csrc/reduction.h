// How the losses of single pixels become the result of a loss.
#pragma once

#include <array>

#include "common.h"

namespace gioada {

enum class Reduction : int { mean, sum, none };

inline std::array<const char*, 3> enum_names(Reduction) { return {"mean", "sum", "none"}; }

inline namespace GIOADA_ISA {

// Factor of the sum of all losses, and of its gradient. A mean divides by `weight`, the sum of the
// pixels' weights. Weights of both signs may cancel: then it divides by 0, as PyTorch does. 0 only
// if nothing counts.
GIOADA_HD double loss_scale(Reduction reduction, double loss, double weight) {
  if (reduction != Reduction::mean) return 1.;
  return weight != 0. || loss != 0. ? 1. / weight : 0.;
}

}  // namespace GIOADA_ISA
}  // namespace gioada
