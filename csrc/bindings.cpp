// The module gioada_fast._C. Pointers arrive as integers; shapes and types were checked in Python.
//
// A kernel takes a struct of arguments. A new one is an entry in GIOADA_FOR_EACH_KERNEL and the
// fields of its struct; one on CUDA is an entry in GIOADA_FOR_EACH_CUDA_KERNEL, too.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "gan_loss.h"
#include "instance_norm_act.h"
#include "semantic_depth_concat.h"
#include "translation_input.h"
#include "upsample_confusion_matrix.h"
#include "upsample_cross_entropy.h"
#include "upsample_depth_loss.h"

namespace py = pybind11;

#ifdef GIOADA_X86
#define GIOADA_FOR_EACH_ISA(apply) apply(avx512) apply(avx2) apply(generic)
#else
#define GIOADA_FOR_EACH_ISA(apply) apply(generic)
#endif

// clang-format off
// apply(kernel, struct of its arguments)
#define GIOADA_FOR_EACH_KERNEL(apply) \
  apply(gan_loss, GanLoss) \
  apply(gan_loss_backward, GanLossBackward) \
  apply(instance_norm_act, InstanceNormAct) \
  apply(instance_norm_act_backward, InstanceNormActBackward) \
  apply(semantic_depth_concat, SemanticDepthConcat) \
  apply(semantic_depth_concat_backward, SemanticDepthConcatBackward) \
  apply(translation_input, TranslationInput) \
  apply(upsample_confusion_matrix, UpsampleConfusionMatrix) \
  apply(upsample_cross_entropy, UpsampleCrossEntropy) \
  apply(upsample_depth_loss, UpsampleDepthLoss)
#define GIOADA_FOR_EACH_CUDA_KERNEL(apply) \
  apply(instance_norm_act, InstanceNormAct) \
  apply(instance_norm_act_backward, InstanceNormActBackward) \
  apply(semantic_depth_concat, SemanticDepthConcat) \
  apply(semantic_depth_concat_backward, SemanticDepthConcatBackward) \
  apply(upsample_confusion_matrix, UpsampleConfusionMatrix) \
  apply(upsample_cross_entropy, UpsampleCrossEntropy) \
  apply(upsample_depth_loss, UpsampleDepthLoss)
// clang-format on

namespace gioada {

#define GIOADA_DECLARE_AVX512(name, Arguments) \
  namespace avx512 {                           \
  void name(const Arguments& op, int threads); \
  }
#define GIOADA_DECLARE_AVX2(name, Arguments)   \
  namespace avx2 {                             \
  void name(const Arguments& op, int threads); \
  }
#define GIOADA_DECLARE_GENERIC(name, Arguments) \
  namespace generic {                           \
  void name(const Arguments& op, int threads);  \
  }
#ifdef GIOADA_X86
GIOADA_FOR_EACH_KERNEL(GIOADA_DECLARE_AVX512)
GIOADA_FOR_EACH_KERNEL(GIOADA_DECLARE_AVX2)
#endif
GIOADA_FOR_EACH_KERNEL(GIOADA_DECLARE_GENERIC)

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

// <kernel>_cpu(op, threads): the kernel of the active instruction set.
#ifdef GIOADA_X86
#define GIOADA_DEFINE_CPU(name, Arguments)                             \
  void name##_cpu(const Arguments& op, int threads) {                  \
    if (active_isa() == Isa::avx512) return avx512::name(op, threads); \
    if (active_isa() == Isa::avx2) return avx2::name(op, threads);     \
    generic::name(op, threads);                                        \
  }
#else
#define GIOADA_DEFINE_CPU(name, Arguments) \
  void name##_cpu(const Arguments& op, int threads) { generic::name(op, threads); }
#endif
GIOADA_FOR_EACH_KERNEL(GIOADA_DEFINE_CPU)

// The Python class of a kernel's arguments. Its constructor takes exactly the fields, by keyword:
// pointers as addresses (0: null), arrays and vectors as sequences.
template <typename Arguments>
class Binding {
 public:
  Binding(py::module_& m, const char* name) {
    py::class_<Arguments>(m, name).def(py::init([](const py::kwargs& values) {
      Arguments op;
      for (const auto& [field, set] : fields()) {
        const py::handle value = PyDict_GetItemWithError(values.ptr(), field.ptr());
        if (!value) throw py::type_error(std::string(py::str(field)) + " is missing");
        set(op, value);
      }
      if (values.size() != fields().size()) throw py::type_error("a keyword names no field");
      return op;
    }));
  }

  template <typename T>
  Binding& field(const char* name, T Arguments::* member) {
    // Interned, as the keywords of a call are: found without comparing characters. Never freed.
    fields().emplace_back(PyUnicode_InternFromString(name),
                          [member](Arguments& op, py::handle value) { assign(op.*member, value); });
    return *this;
  }

 private:
  using Setter = std::function<void(Arguments&, py::handle)>;

  static std::vector<std::pair<py::handle, Setter>>& fields() {
    static std::vector<std::pair<py::handle, Setter>> all;
    return all;
  }

  template <typename T>
  static void assign(T& to, py::handle value) {
    to = value.cast<T>();
  }
  template <typename T>
  static void assign(T*& to, py::handle value) {
    to = reinterpret_cast<T*>(value.cast<uintptr_t>());
  }
  template <typename T>
  static void assign(std::vector<T*>& to, py::handle value) {
    to.clear();
    for (uintptr_t address : value.cast<std::vector<uintptr_t>>()) {
      to.push_back(reinterpret_cast<T*>(address));
    }
  }
  template <size_t kSize>
  static void assign(int64_t (&to)[kSize], py::handle value) {
    const auto values = value.cast<std::array<int64_t, kSize>>();
    for (size_t i = 0; i < kSize; ++i) to[i] = values[i];
  }
};

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

  py::enum_<FloatType>(m, "FloatType")
      .value("float32", FloatType::float32)
      .value("bfloat16", FloatType::bfloat16);
  py::enum_<LabelType>(m, "LabelType")
      .value("int64", LabelType::int64)
      .value("uint8", LabelType::uint8);
  py::enum_<GanKind>(m, "GanKind")
      .value("lsgan", GanKind::lsgan)
      .value("bce", GanKind::bce)
      .value("hinge", GanKind::hinge)
      .value("linear", GanKind::linear);

#define GIOADA_BIND_CPU(name, Arguments) \
  m.def(#name "_cpu", &name##_cpu, release_gil(), py::arg("op"), py::arg("threads"));
  GIOADA_FOR_EACH_KERNEL(GIOADA_BIND_CPU)

#ifdef GIOADA_CUDA
  m.attr("has_cuda") = true;
#define GIOADA_BIND_CUDA(name, Arguments)                                                     \
  m.def(#name "_workspace", &cuda::name##_workspace, py::arg("op"),                           \
        "Number of floats of workspace that " #name "_cuda wants.");                          \
  m.def(                                                                                      \
      #name "_cuda",                                                                          \
      [](const Arguments& op, uintptr_t workspace, uintptr_t stream) {                        \
        cuda::name(op, reinterpret_cast<float*>(workspace), reinterpret_cast<void*>(stream)); \
      },                                                                                      \
      release_gil(), py::arg("op"), py::arg("workspace"), py::arg("stream"));
  GIOADA_FOR_EACH_CUDA_KERNEL(GIOADA_BIND_CUDA)
#else
  m.attr("has_cuda") = false;
#endif

  Binding<TranslationInput>(m, "TranslationInput")
      .field("image", &TranslationInput::image)
      .field("image_strides", &TranslationInput::image_strides)
      .field("depth", &TranslationInput::depth)
      .field("depth_type", &TranslationInput::depth_type)
      .field("depth_strides", &TranslationInput::depth_strides)
      .field("labels", &TranslationInput::labels)
      .field("label_type", &TranslationInput::label_type)
      .field("batch", &TranslationInput::batch)
      .field("classes", &TranslationInput::classes)
      .field("height", &TranslationInput::height)
      .field("width", &TranslationInput::width)
      .field("out", &TranslationInput::out)
      .field("out_type", &TranslationInput::out_type);
  Binding<SemanticDepthConcat>(m, "SemanticDepthConcat")
      .field("logits", &SemanticDepthConcat::logits)
      .field("depth", &SemanticDepthConcat::depth)
      .field("type", &SemanticDepthConcat::type)
      .field("logit_strides", &SemanticDepthConcat::logit_strides)
      .field("depth_strides", &SemanticDepthConcat::depth_strides)
      .field("batch", &SemanticDepthConcat::batch)
      .field("classes", &SemanticDepthConcat::classes)
      .field("in_height", &SemanticDepthConcat::in_height)
      .field("in_width", &SemanticDepthConcat::in_width)
      .field("height", &SemanticDepthConcat::height)
      .field("width", &SemanticDepthConcat::width)
      .field("out", &SemanticDepthConcat::out);
  Binding<SemanticDepthConcatBackward>(m, "SemanticDepthConcatBackward")
      .field("grad", &SemanticDepthConcatBackward::grad)
      .field("logits", &SemanticDepthConcatBackward::logits)
      .field("type", &SemanticDepthConcatBackward::type)
      .field("grad_strides", &SemanticDepthConcatBackward::grad_strides)
      .field("logit_strides", &SemanticDepthConcatBackward::logit_strides)
      .field("batch", &SemanticDepthConcatBackward::batch)
      .field("channels", &SemanticDepthConcatBackward::channels)
      .field("classes", &SemanticDepthConcatBackward::classes)
      .field("in_height", &SemanticDepthConcatBackward::in_height)
      .field("in_width", &SemanticDepthConcatBackward::in_width)
      .field("height", &SemanticDepthConcatBackward::height)
      .field("width", &SemanticDepthConcatBackward::width)
      .field("grad_logits", &SemanticDepthConcatBackward::grad_logits)
      .field("grad_depth", &SemanticDepthConcatBackward::grad_depth);
  Binding<UpsampleConfusionMatrix>(m, "UpsampleConfusionMatrix")
      .field("logits", &UpsampleConfusionMatrix::logits)
      .field("logit_type", &UpsampleConfusionMatrix::logit_type)
      .field("logit_strides", &UpsampleConfusionMatrix::logit_strides)
      .field("labels", &UpsampleConfusionMatrix::labels)
      .field("label_type", &UpsampleConfusionMatrix::label_type)
      .field("ignore_index", &UpsampleConfusionMatrix::ignore_index)
      .field("batch", &UpsampleConfusionMatrix::batch)
      .field("classes", &UpsampleConfusionMatrix::classes)
      .field("in_height", &UpsampleConfusionMatrix::in_height)
      .field("in_width", &UpsampleConfusionMatrix::in_width)
      .field("height", &UpsampleConfusionMatrix::height)
      .field("width", &UpsampleConfusionMatrix::width)
      .field("counts", &UpsampleConfusionMatrix::counts)
      .field("wrong_label", &UpsampleConfusionMatrix::wrong_label);

  Binding<InstanceNormAct>(m, "InstanceNormAct")
      .field("x", &InstanceNormAct::x)
      .field("type", &InstanceNormAct::type)
      .field("residual", &InstanceNormAct::residual)
      .field("residual_strides", &InstanceNormAct::residual_strides)
      .field("negative_slope", &InstanceNormAct::negative_slope)
      .field("eps", &InstanceNormAct::eps)
      .field("batch", &InstanceNormAct::batch)
      .field("channels", &InstanceNormAct::channels)
      .field("height", &InstanceNormAct::height)
      .field("width", &InstanceNormAct::width)
      .field("pad", &InstanceNormAct::pad)
      .field("mean", &InstanceNormAct::mean)
      .field("rstd", &InstanceNormAct::rstd)
      .field("out", &InstanceNormAct::out);
  Binding<InstanceNormActBackward>(m, "InstanceNormActBackward")
      .field("grad", &InstanceNormActBackward::grad)
      .field("x", &InstanceNormActBackward::x)
      .field("type", &InstanceNormActBackward::type)
      .field("mean", &InstanceNormActBackward::mean)
      .field("rstd", &InstanceNormActBackward::rstd)
      .field("negative_slope", &InstanceNormActBackward::negative_slope)
      .field("batch", &InstanceNormActBackward::batch)
      .field("channels", &InstanceNormActBackward::channels)
      .field("height", &InstanceNormActBackward::height)
      .field("width", &InstanceNormActBackward::width)
      .field("pad", &InstanceNormActBackward::pad)
      .field("grad_x", &InstanceNormActBackward::grad_x)
      .field("grad_residual", &InstanceNormActBackward::grad_residual);
  Binding<UpsampleCrossEntropy>(m, "UpsampleCrossEntropy")
      .field("logits", &UpsampleCrossEntropy::logits)
      .field("logit_type", &UpsampleCrossEntropy::logit_type)
      .field("logit_strides", &UpsampleCrossEntropy::logit_strides)
      .field("labels", &UpsampleCrossEntropy::labels)
      .field("label_type", &UpsampleCrossEntropy::label_type)
      .field("weight", &UpsampleCrossEntropy::weight)
      .field("ignore_index", &UpsampleCrossEntropy::ignore_index)
      .field("batch", &UpsampleCrossEntropy::batch)
      .field("classes", &UpsampleCrossEntropy::classes)
      .field("in_height", &UpsampleCrossEntropy::in_height)
      .field("in_width", &UpsampleCrossEntropy::in_width)
      .field("height", &UpsampleCrossEntropy::height)
      .field("width", &UpsampleCrossEntropy::width)
      .field("loss", &UpsampleCrossEntropy::loss)
      .field("grad", &UpsampleCrossEntropy::grad)
      .field("wrong_label", &UpsampleCrossEntropy::wrong_label);

  Binding<UpsampleDepthLoss>(m, "UpsampleDepthLoss")
      .field("depth", &UpsampleDepthLoss::depth)
      .field("depth_type", &UpsampleDepthLoss::depth_type)
      .field("depth_strides", &UpsampleDepthLoss::depth_strides)
      .field("target", &UpsampleDepthLoss::target)
      .field("target_type", &UpsampleDepthLoss::target_type)
      .field("valid", &UpsampleDepthLoss::valid)
      .field("berhu", &UpsampleDepthLoss::berhu)
      .field("batch", &UpsampleDepthLoss::batch)
      .field("in_height", &UpsampleDepthLoss::in_height)
      .field("in_width", &UpsampleDepthLoss::in_width)
      .field("height", &UpsampleDepthLoss::height)
      .field("width", &UpsampleDepthLoss::width)
      .field("loss", &UpsampleDepthLoss::loss)
      .field("grad", &UpsampleDepthLoss::grad);

  Binding<GanLoss>(m, "GanLoss")
      .field("logits", &GanLoss::logits)
      .field("elements", &GanLoss::elements)
      .field("real", &GanLoss::real)
      .field("type", &GanLoss::type)
      .field("kind", &GanLoss::kind)
      .field("loss", &GanLoss::loss);

  Binding<GanLossBackward>(m, "GanLossBackward")
      .field("logits", &GanLossBackward::logits)
      .field("elements", &GanLossBackward::elements)
      .field("real", &GanLossBackward::real)
      .field("type", &GanLossBackward::type)
      .field("kind", &GanLossBackward::kind)
      .field("grad_loss", &GanLossBackward::grad_loss)
      .field("grad", &GanLossBackward::grad);
}
