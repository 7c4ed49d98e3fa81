// Builds a struct of kernel arguments from positional Python arguments, one per field and in the
// order of the fields. Names and types of the arguments are written only in the struct.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "dlpack.h"
#include "tensor_view.h"

namespace gioada {

namespace py = pybind11;

// The Python type that is converted to TensorView, and its DLPack functions. Set once, by
// read_tensors_of.
struct TensorReader {
  PyTypeObject* type = nullptr;
  const DLPackExchangeAPI* api = nullptr;
};

inline TensorReader& tensor_reader() {
  static TensorReader reader;
  return reader;
}

inline void read_tensors_of(const py::type& type) {
  constexpr uint32_t kMajorVersion = 1;
  const auto capsule = py::capsule(type.attr("__dlpack_c_exchange_api__"));
  const auto* api = capsule.get_pointer<DLPackExchangeAPI>();
  if (api->major_version != kMajorVersion || api->dltensor_from_py_object_no_sync == nullptr) {
    throw py::import_error("this PyTorch does not offer the C exchange API of DLPack 1.3");
  }
  tensor_reader() = {reinterpret_cast<PyTypeObject*>(type.ptr()), api};
}

inline ScalarType scalar_type(DLDataType type) {
  enum Code { kInt = 0, kUInt = 1, kFloat = 2, kBfloat = 4, kBool = 6 };
  const auto is = [&](Code code, int bits) { return type.code == code && type.bits == bits; };
  if (is(kFloat, 32)) return ScalarType::float32;
  if (is(kBfloat, 16)) return ScalarType::bfloat16;
  if (is(kFloat, 16)) return ScalarType::float16;
  if (is(kInt, 64)) return ScalarType::int64;
  if (is(kInt, 32)) return ScalarType::int32;
  if (is(kUInt, 8) || is(kBool, 8)) return ScalarType::uint8;
  throw py::type_error(
      "expected a tensor of float32, bfloat16, float16, int64, int32, uint8 or bool");
}

inline TensorView view_of(py::handle value) {
  TensorView view = {};
  if (value.is_none()) return view;
  if (!PyObject_TypeCheck(value.ptr(), tensor_reader().type))
    throw py::type_error("expected a tensor");
  DLTensor tensor;
  if (tensor_reader().api->dltensor_from_py_object_no_sync(value.ptr(), &tensor) != 0) {
    throw py::error_already_set();
  }
  view.type = scalar_type(tensor.dtype);
  view.data = static_cast<char*>(tensor.data) + tensor.byte_offset;
  // Merges leading dimensions beyond kMaxDims into the first one. Such tensors must be dense.
  const int extra = tensor.ndim > kMaxDims ? tensor.ndim - kMaxDims : 0;
  for (int d = 0; d < kMaxDims; ++d) {
    const bool exists = d + extra < tensor.ndim;
    view.shape[d] = exists ? tensor.shape[d + extra] : 1;
    view.strides[d] = exists ? tensor.strides[d + extra] : 0;
  }
  for (int d = 0; d < extra; ++d) view.shape[0] *= tensor.shape[d];
  if (view.elements() == 0) view.data = nullptr;
  return view;
}

// Converts to the type of the field that it initialises. Python passes an enum by name;
// enum_names(E{}) lists the names in the order of the values.
struct AnyField {
  py::handle value;

  template <typename T>
  operator T() const {
    return convert(value, static_cast<T*>(nullptr));
  }

 private:
  static TensorView convert(py::handle value, TensorView*) { return view_of(value); }

  // From the tuple of the same name in gioada_fast/ops/_bilinear.py.
  static Axis convert(py::handle value, Axis*) {
    const auto item = [&](int i) { return PyLong_AsLongLong(PyTuple_GET_ITEM(value.ptr(), i)); };
    if (!PyTuple_Check(value.ptr()) || PyTuple_GET_SIZE(value.ptr()) != 5) {
      throw py::type_error("expected an axis of five integers");
    }
    const Axis axis = {item(0), item(1), item(2), item(3), item(4)};
    if (PyErr_Occurred()) throw py::error_already_set();
    return axis;
  }

  template <typename T>
  static std::vector<T> convert(py::handle value, std::vector<T>*) {
    const auto items = py::reinterpret_borrow<py::sequence>(value);
    std::vector<T> result;
    result.reserve(items.size());
    for (py::handle item : items) result.push_back(AnyField{item});
    return result;
  }

  template <typename T>
  static T convert(py::handle value, T*) {
    if constexpr (std::is_enum_v<T>) {
      int index = 0;
      for (const char* name : enum_names(T{})) {
        if (PyUnicode_CompareWithASCIIString(value.ptr(), name) == 0) return static_cast<T>(index);
        ++index;
      }
      throw py::value_error("unknown name " + std::string(py::repr(value)));
    } else {
      return value.cast<T>();
    }
  }
};

template <typename Aggregate, typename... Fields>
auto is_initialised_by(int, const Fields&... fields)
    -> decltype(Aggregate{fields...}, std::true_type());
template <typename Aggregate>
std::false_type is_initialised_by(...);

// Number of fields of an aggregate.
template <typename Aggregate, typename... Fields>
constexpr size_t field_count() {
  using OneMore = decltype(is_initialised_by<Aggregate>(0, std::declval<Fields>()..., AnyField{}));
  if constexpr (OneMore::value) {
    return field_count<Aggregate, Fields..., AnyField>();
  } else {
    return sizeof...(Fields);
  }
}

template <typename Aggregate, size_t... kIndex>
Aggregate build(const py::args& values, size_t first, std::index_sequence<kIndex...>) {
  return Aggregate{AnyField{PyTuple_GET_ITEM(values.ptr(), first + kIndex)}...};
}

// Builds the aggregate from values[first], values[first + 1], ...
template <typename Aggregate>
Aggregate build(const py::args& values, size_t first) {
  constexpr size_t kFields = field_count<Aggregate>();
  if (values.size() != first + kFields) {
    throw py::type_error(std::to_string(values.size()) + " arguments, expected " +
                         std::to_string(first + kFields));
  }
  return build<Aggregate>(values, first, std::make_index_sequence<kFields>());
}

}  // namespace gioada
