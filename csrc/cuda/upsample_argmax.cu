// CUDA kernel: one thread per pixel column predicts several pixel rows of a cell at once and stores
// them.

#include "cuda/argmax.h"
#include "upsample_argmax.h"

namespace gioada {
namespace cuda {
namespace {

template <typename T, typename Class>
__global__ void __launch_bounds__(kArgmaxThreads)
    argmax_kernel(const UpsampleArgmax op, const ArgmaxTiles tiles) {
  Class* predictions = op.predictions.as<Class>();
  predict_tiles<T>(op, tiles, [&](int64_t pixel, int rows, const auto& arg) {
#pragma unroll
    for (int r = 0; r < static_cast<int>(sizeof arg / sizeof arg[0]); ++r) {
      if (r < rows) predictions[pixel + r * op.width()] = static_cast<Class>(arg[r]);
    }
  });
}

}  // namespace

int64_t upsample_argmax_workspace(const UpsampleArgmax&) { return 0; }

// Expects at least one pixel.
void upsample_argmax(const UpsampleArgmax& op, float*, void* stream_) {
  const cudaStream_t stream = static_cast<cudaStream_t>(stream_);
  const ArgmaxTiles tiles = argmax_tiles(op);
  const dim3 blocks = argmax_grid("upsample_argmax", tiles);
  with_float_type(op.logits.type, [&](auto logit) {
    with_label_type(op.predictions.type, [&](auto prediction) {
      argmax_kernel<decltype(logit), decltype(prediction)>
          <<<blocks, kArgmaxThreads, 0, stream>>>(op, tiles);
    });
  });
  check_launch("upsample_argmax");
}

}  // namespace cuda
}  // namespace gioada
