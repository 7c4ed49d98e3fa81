// The module gioada_fast._C: <kernel>_cpu and, if there is one, <kernel>_cuda. They take the fields
// of the kernel's struct in order, with torch tensors for TensorView. Python has checked shapes and
// types.
//
// A new kernel needs a line in GIOADA_FOR_EACH_KERNEL and, for CUDA, one in
// GIOADA_FOR_EACH_CUDA_KERNEL.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "aggregate.h"
#include "gan_loss.h"
#include "instance_norm_act.h"
#include "semantic_depth_concat.h"
#include "translation_input.h"
#include "upsample_argmax.h"
#include "upsample_confusion_matrix.h"
#include "upsample_cross_entropy.h"
#include "upsample_depth_loss.h"

#ifdef GIOADA_X86
#define GIOADA_FOR_EACH_ISA(apply) apply(avx512) apply(avx2) apply(generic)
#else
#define GIOADA_FOR_EACH_ISA(apply) apply(generic)
#endif

// clang-format off
// apply(return type, kernel, struct of its arguments)
#define GIOADA_FOR_EACH_KERNEL(apply) \
  apply(void, gan_loss, GanLoss) \
  apply(void, gan_loss_backward, GanLossBackward) \
  apply(void, instance_norm_act, InstanceNormAct) \
  apply(void, instance_norm_act_backward, InstanceNormActBackward) \
  apply(void, semantic_depth_concat, SemanticDepthConcat) \
  apply(void, semantic_depth_concat_backward, SemanticDepthConcatBackward) \
  apply(void, translation_input, TranslationInput) \
  apply(void, upsample_argmax, UpsampleArgmax) \
  apply(int64_t, upsample_confusion_matrix, UpsampleConfusionMatrix) \
  apply(int64_t, upsample_cross_entropy, UpsampleCrossEntropy) \
  apply(void, upsample_depth_loss, UpsampleDepthLoss)
#define GIOADA_FOR_EACH_CUDA_KERNEL(apply) \
  apply(instance_norm_act, InstanceNormAct) \
  apply(instance_norm_act_backward, InstanceNormActBackward) \
  apply(semantic_depth_concat, SemanticDepthConcat) \
  apply(semantic_depth_concat_backward, SemanticDepthConcatBackward) \
  apply(upsample_argmax, UpsampleArgmax) \
  apply(upsample_confusion_matrix, UpsampleConfusionMatrix) \
  apply(upsample_cross_entropy, UpsampleCrossEntropy) \
  apply(upsample_depth_loss, UpsampleDepthLoss)
// clang-format on

namespace gioada {

#define GIOADA_DECLARE(result, name, Arguments) result name(const Arguments& op, int threads);
#ifdef GIOADA_X86
namespace avx512 {
GIOADA_FOR_EACH_KERNEL(GIOADA_DECLARE)
}
namespace avx2 {
GIOADA_FOR_EACH_KERNEL(GIOADA_DECLARE)
}
#endif
namespace generic {
GIOADA_FOR_EACH_KERNEL(GIOADA_DECLARE)
}

#ifdef GIOADA_CUDA
namespace cuda {
#define GIOADA_DECLARE_CUDA(name, Arguments)     \
  int64_t name##_workspace(const Arguments& op); \
  void name(const Arguments& op, float* workspace, void* stream);
GIOADA_FOR_EACH_CUDA_KERNEL(GIOADA_DECLARE_CUDA)
}  // namespace cuda
#endif

namespace {

enum class Isa { avx512, avx2, generic };

bool runs_here(Isa isa) {
#ifdef GIOADA_X86
  __builtin_cpu_init();
  if (isa != Isa::generic && !__builtin_cpu_supports("f16c")) return false;
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
  throw std::invalid_argument("instruction set '" + name +
                              "' is unknown, or this processor does not have it");
}

// <kernel>_cpu(op, threads) calls the kernel of the active instruction set.
#ifdef GIOADA_X86
#define GIOADA_DEFINE_CPU(result, name, Arguments)                     \
  result name##_cpu(const Arguments& op, int threads) {                \
    if (active_isa() == Isa::avx512) return avx512::name(op, threads); \
    if (active_isa() == Isa::avx2) return avx2::name(op, threads);     \
    return generic::name(op, threads);                                 \
  }
#else
#define GIOADA_DEFINE_CPU(result, name, Arguments) \
  result name##_cpu(const Arguments& op, int threads) { return generic::name(op, threads); }
#endif
GIOADA_FOR_EACH_KERNEL(GIOADA_DEFINE_CPU)

// Binds name(threads, *arguments).
template <typename Arguments, typename Result>
void bind_cpu(py::module_& m, const char* name, Result (*kernel)(const Arguments&, int)) {
  m.def(name, [kernel](int threads, const py::args& arguments) {
    const auto op = build<Arguments>(arguments, 0);
    const py::gil_scoped_release release;
    return kernel(op, threads);
  });
}

#ifdef GIOADA_CUDA
// Binds name(workspace, stream, *arguments), and name_workspace(*arguments), which returns the
// number of floats in the workspace.
template <typename Arguments>
void bind_cuda(py::module_& m, const std::string& name, int64_t (*workspace_size)(const Arguments&),
               void (*kernel)(const Arguments&, float*, void*)) {
  m.def((name + "_workspace").c_str(), [workspace_size](const py::args& arguments) {
    return workspace_size(build<Arguments>(arguments, 0));
  });
  m.def(name.c_str(),
        [kernel](const py::object& workspace, uintptr_t stream, const py::args& arguments) {
          const auto op = build<Arguments>(arguments, 0);
          float* memory = view_of(workspace).as<float>();
          const py::gil_scoped_release release;
          kernel(op, memory, reinterpret_cast<void*>(stream));
        });
}
#endif

}  // namespace
}  // namespace gioada

PYBIND11_MODULE(_C, m) {
  using namespace gioada;
  m.doc() = "Kernels of gioada_fast; gioada_fast.ops is the public interface.";

  m.def("read_tensors_of", &read_tensors_of, py::arg("type"),
        "Set the type of tensors; it must offer DLPack's C exchange API.");
  m.def("instruction_sets", &instruction_sets,
        "CPU instruction sets that have kernels and run on this processor, best first.");
  m.def(
      "instruction_set", [] { return std::string(name_of(active_isa())); },
      "The instruction set in use.");
  m.def("use_instruction_set", &use_instruction_set, py::arg("name"),
        "Choose the instruction set for the whole process; returns the previous one.");

#define GIOADA_BIND_CPU(result, name, Arguments) bind_cpu(m, #name "_cpu", name##_cpu);
  GIOADA_FOR_EACH_KERNEL(GIOADA_BIND_CPU)

#ifdef GIOADA_CUDA
  m.attr("has_cuda") = true;
#define GIOADA_BIND_CUDA(name, Arguments) \
  bind_cuda(m, #name "_cuda", cuda::name##_workspace, cuda::name);
  GIOADA_FOR_EACH_CUDA_KERNEL(GIOADA_BIND_CUDA)
#else
  m.attr("has_cuda") = false;
#endif
}
