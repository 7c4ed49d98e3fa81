// The module gioada_fast._C. Pointers arrive as integers; shapes and types were checked in Python.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <stdexcept>
#include <string>
#include <vector>

#include "upsample_cross_entropy.h"

namespace py = pybind11;

#ifdef GIOADA_X86
#define GIOADA_FOR_EACH_ISA(apply) apply(avx512) apply(avx2) apply(generic)
#else
#define GIOADA_FOR_EACH_ISA(apply) apply(generic)
#endif

namespace gioada {

// The CPU kernels, as each instruction set has them.
#define GIOADA_DECLARE(isa)                                         \
  namespace isa {                                                   \
  void upsample_cross_entropy(const UpsampleCrossEntropy& op, int); \
  }
GIOADA_FOR_EACH_ISA(GIOADA_DECLARE)

#ifdef GIOADA_CUDA
namespace cuda {
int64_t upsample_cross_entropy_workspace(const UpsampleCrossEntropy& op);
void upsample_cross_entropy(const UpsampleCrossEntropy& op, float* workspace, void* stream);
}  // namespace cuda
#endif

namespace {

enum class Isa { avx512, avx2, generic };

bool runs_here(Isa isa) {
#ifdef GIOADA_X86
  __builtin_cpu_init();
  if (isa == Isa::avx512) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  }
  if (isa == Isa::avx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  return isa == Isa::generic;
}

const char* name_of(Isa isa) {
  return isa == Isa::avx512 ? "avx512" : isa == Isa::avx2 ? "avx2" : "generic";
}

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
#define GIOADA_NAME(isa) \
  if (runs_here(Isa::isa)) names.push_back(#isa);
  GIOADA_FOR_EACH_ISA(GIOADA_NAME)
  return names;
}

Isa& active_isa() {
  static Isa isa = runs_here(Isa::avx512) ? Isa::avx512
                   : runs_here(Isa::avx2) ? Isa::avx2
                                          : Isa::generic;
  return isa;
}

std::string use_instruction_set(const std::string& name) {
  for (Isa isa : {Isa::avx512, Isa::avx2, Isa::generic}) {
    if (name == name_of(isa) && runs_here(isa)) {
      const std::string before = name_of(active_isa());
      active_isa() = isa;
      return before;
    }
  }
  throw std::invalid_argument("instruction set '" + name + "' is unknown or not of this processor");
}

#define GIOADA_CASE(isa, ...) \
  case Isa::isa:              \
    return isa::__VA_ARGS__;

void upsample_cross_entropy_cpu(const UpsampleCrossEntropy& op, int threads) {
#define GIOADA_CALL(isa) GIOADA_CASE(isa, upsample_cross_entropy(op, threads))
  switch (active_isa()) {
    GIOADA_FOR_EACH_ISA(GIOADA_CALL)
    default:
      break;
  }
#undef GIOADA_CALL
}

template <typename T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

UpsampleCrossEntropy upsample_cross_entropy_args(uintptr_t logits, bool bfloat16,
                                                 std::array<int64_t, 4> shape,
                                                 std::array<int64_t, 4> strides, uintptr_t labels,
                                                 bool uint8, int64_t height, int64_t width,
                                                 uintptr_t weight, int64_t ignore_index,
                                                 uintptr_t loss, uintptr_t grad) {
  UpsampleCrossEntropy op;
  op.logits = pointer<const void>(logits);
  op.logit_type = bfloat16 ? LogitType::bfloat16 : LogitType::float32;
  for (int i = 0; i < 4; ++i) op.logit_strides[i] = strides[i];
  op.labels = pointer<const void>(labels);
  op.label_type = uint8 ? LabelType::uint8 : LabelType::int64;
  op.weight = pointer<const float>(weight);
  op.ignore_index = ignore_index;
  op.batch = shape[0];
  op.classes = shape[1];
  op.in_height = shape[2];
  op.in_width = shape[3];
  op.height = height;
  op.width = width;
  op.loss = pointer<float>(loss);
  op.grad = pointer<float>(grad);
  return op;
}

}  // namespace
}  // namespace gioada

PYBIND11_MODULE(_C, m) {
  using namespace gioada;
  using release_gil = py::call_guard<py::gil_scoped_release>;
  m.doc() = "Kernels of gioada_fast on raw pointers; gioada_fast.ops is the public interface.";

  m.def("instruction_sets", &instruction_sets,
        "CPU instruction sets this module has kernels for and this processor can run, best first.");
  m.def(
      "instruction_set", [] { return std::string(name_of(active_isa())); },
      "The instruction set in use.");
  m.def("use_instruction_set", &use_instruction_set, py::arg("name"),
        "Choose the instruction set for the whole process; returns the one before.");

  py::class_<UpsampleCrossEntropy>(m, "UpsampleCrossEntropy")
      .def(py::init(&upsample_cross_entropy_args), py::arg("logits"), py::arg("bfloat16"),
           py::arg("shape"), py::arg("strides"), py::arg("labels"), py::arg("uint8"),
           py::arg("height"), py::arg("width"), py::arg("weight"), py::arg("ignore_index"),
           py::arg("loss"), py::arg("grad"));
  m.def("upsample_cross_entropy_cpu", &upsample_cross_entropy_cpu, release_gil(), py::arg("op"),
        py::arg("threads"));

#ifdef GIOADA_CUDA
  m.attr("has_cuda") = true;
  m.def("upsample_cross_entropy_workspace", &cuda::upsample_cross_entropy_workspace, py::arg("op"),
        "Number of floats of workspace that upsample_cross_entropy_cuda wants.");
  m.def(
      "upsample_cross_entropy_cuda",
      [](const UpsampleCrossEntropy& op, uintptr_t workspace, uintptr_t stream) {
        cuda::upsample_cross_entropy(op, pointer<float>(workspace), pointer<void>(stream));
      },
      release_gil(), py::arg("op"), py::arg("workspace"), py::arg("stream"));
#else
  m.attr("has_cuda") = false;
#endif
}
