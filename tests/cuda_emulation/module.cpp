// The module _C with CUDA kernels alone: functions that abort take the place of the CPU kernels.
#define GIOADA_CUDA 1
#include <cstdlib>

#include "bindings.cpp"

namespace gioada {
namespace generic {
#define GIOADA_ABSENT(result, name, Arguments) \
  result name(const Arguments&, int) { std::abort(); }
GIOADA_FOR_EACH_KERNEL(GIOADA_ABSENT)
}  // namespace generic
}  // namespace gioada
