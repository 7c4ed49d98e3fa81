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
#include "upsample_cross_entropy.h"

namespace py = pybind11;

#ifdef GIOADA_X86
#define GIOADA_FOR_EACH_ISA(apply) apply(avx512) apply(avx2) apply(generic)
#else
#define GIOADA_FOR_EACH_ISA(apply) apply(generic)
#endif

// apply(kernel, struct of its arguments)
#define GIOADA_FOR_EACH_KERNEL(apply)                                          \
  apply(upsample_cross_entropy, UpsampleCrossEntropy) apply(gan_loss, GanLoss) \
      apply(gan_loss_backward, GanLossBackward)
#define GIOADA_FOR_EACH_CUDA_KERNEL(apply) apply(upsample_cross_entropy, UpsampleCrossEntropy)

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
      .field("grad", &UpsampleCrossEntropy::grad);

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
