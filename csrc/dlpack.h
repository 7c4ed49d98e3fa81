// The part of DLPack 1.3 (github.com/dmlc/dlpack) that reads a Python tensor: the function table
// that torch.Tensor.__dlpack_c_exchange_api__ points to. Layouts and names are the standard's.
#pragma once

#include <cstdint>

struct DLDevice {
  int32_t device_type, device_id;
};

struct DLDataType {
  uint8_t code, bits;
  uint16_t lanes;
};

struct DLTensor {
  void* data;
  DLDevice device;
  int32_t ndim;
  DLDataType dtype;
  int64_t *shape, *strides;  // strides in elements
  uint64_t byte_offset;
};

struct DLPackExchangeAPI {
  uint32_t major_version, minor_version;
  void* previous_version;
  void (*managed_tensor_functions[3])();
  // Fills `out`, which borrows shape and strides. Returns 0, or -1 with a Python error set.
  int (*dltensor_from_py_object_no_sync)(void* object, DLTensor* out);
};
