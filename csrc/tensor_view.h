// How a tensor reaches a kernel: address, element type, shape and strides. Plain data, so a CUDA
// kernel takes it by value.
#pragma once

#include "common.h"

namespace gioada {

// A new element type needs a name here, a line in scalar_type (aggregate.h) and one in
// with_float_type or with_label_type. Booleans are uint8.
enum class ScalarType : int { float32, bfloat16, float16, int64, int32, uint8 };

constexpr int kMaxDims = 4;

struct TensorView {
  void* data;                 // null: no tensor, or one without elements
  ScalarType type;            // element type
  int64_t shape[kMaxDims];    // 1 beyond the tensor's last dimension
  int64_t strides[kMaxDims];  // in elements

  template <typename T>
  GIOADA_MEMBER T* as() const {
    return static_cast<T*>(data);
  }
  GIOADA_MEMBER explicit operator bool() const { return data != nullptr; }
  GIOADA_MEMBER int64_t elements() const { return shape[0] * shape[1] * shape[2] * shape[3]; }
};

inline namespace GIOADA_ISA {

#ifdef __CUDACC__
#pragma nv_exec_check_disable  // `function` runs where its caller does
#endif
// Calls function(T{}) with the element type T of a floating-point tensor.
template <typename Function>
GIOADA_HD void with_float_type(ScalarType type, const Function& function) {
  if (type == ScalarType::bfloat16) {
    function(bfloat16{});
  } else if (type == ScalarType::float16) {
    function(float16{});
  } else {
    function(float{});
  }
}

#ifdef __CUDACC__
#pragma nv_exec_check_disable
#endif
// Calls function(T{}) with the element type T of labels.
template <typename Function>
GIOADA_HD void with_label_type(ScalarType type, const Function& function) {
  if (type == ScalarType::uint8) {
    function(uint8_t{});
  } else if (type == ScalarType::int32) {
    function(int32_t{});
  } else {
    function(int64_t{});
  }
}

}  // namespace GIOADA_ISA
}  // namespace gioada
