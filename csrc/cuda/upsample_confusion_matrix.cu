// CUDA kernel: one thread per pixel column predicts several pixel rows of a cell at once and counts
// them.
//
// Counts accumulate in shared memory, with one addition for a run of pixels in a column that have
// the same label and prediction. Persistent blocks loop over tiles, so that few of them flush to
// global memory. Counts are integers, so the order of additions does not matter.

#include "cuda/argmax.h"
#include "upsample_confusion_matrix.h"

namespace gioada {
namespace cuda {
namespace {

// Adjacent threads often see the same label and prediction. They count in different histogram
// copies, because atomic additions to one address are serialised.
constexpr int kMaxCopies = 8;
constexpr int64_t kMaxSharedOfCopies = 16 << 10;  // bytes, if there are several copies
constexpr int64_t kMaxShared = 48 << 10;          // bytes, for a single copy

// Adds `pixels` to an element of the matrix, which is -1 for pixels that do not count.
__device__ __forceinline__ void add(const UpsampleConfusionMatrix& op,
                                    unsigned* shared,  // [classes, classes, copies]
                                    int copies, int element, int pixels) {
  if (pixels == 0 || element < 0) return;
  if (copies > 0) {
    atomicAdd(shared + element * copies + threadIdx.x % copies, static_cast<unsigned>(pixels));
  } else {
    atomicAdd(op.counts.as<unsigned long long>() + element,
              static_cast<unsigned long long>(pixels));
  }
}

template <typename T>
__global__ void __launch_bounds__(kArgmaxThreads)
    count_kernel(const UpsampleConfusionMatrix op, const ArgmaxTiles tiles, int copies) {
  extern __shared__ unsigned shared[];  // [classes, classes, copies]; empty without copies
  const int classes = static_cast<int>(op.classes()), matrix = classes * classes;
  for (int i = threadIdx.x; i < matrix * copies; i += kArgmaxThreads) shared[i] = 0;
  __syncthreads();
  predict_tiles<T>(op, tiles, [&](int64_t pixel, int rows, const auto& arg) {
    int last = -1, run = 0;
#pragma unroll
    for (int r = 0; r < static_cast<int>(sizeof arg / sizeof arg[0]); ++r) {
      if (r >= rows) break;
      const int label = read_class(op, pixel + r * op.width());
      const int element = label >= 0 ? label * classes + arg[r] : -1;
      if (element != last) {
        add(op, shared, copies, last, run);
        last = element;
        run = 0;
      }
      ++run;
    }
    add(op, shared, copies, last, run);
  });
  if (copies == 0) return;
  __syncthreads();
  for (int i = threadIdx.x; i < matrix; i += kArgmaxThreads) {
    unsigned pixels = 0;
    for (int copy = 0; copy < copies; ++copy) pixels += shared[i * copies + copy];
    if (pixels > 0) atomicAdd(op.counts.as<unsigned long long>() + i, pixels);
  }
}

}  // namespace

int64_t upsample_confusion_matrix_workspace(const UpsampleConfusionMatrix&) { return 0; }

// Expects at least one pixel.
void upsample_confusion_matrix(const UpsampleConfusionMatrix& op, float*, void* stream_) {
  const cudaStream_t stream = static_cast<cudaStream_t>(stream_);
  const ArgmaxTiles tiles = argmax_tiles(op);
  const int64_t matrix = op.classes() * op.classes() * sizeof(unsigned);  // bytes
  int copies = matrix <= kMaxShared ? kMaxCopies : 0;  // 0: threads add directly to op.counts
  while (copies > 1 && copies * matrix > kMaxSharedOfCopies) copies /= 2;
  const dim3 blocks = argmax_grid("upsample_confusion_matrix", tiles);
  with_float_type(op.logits.type, [&](auto logit) {
    count_kernel<decltype(logit)>
        <<<blocks, kArgmaxThreads, copies * matrix, stream>>>(op, tiles, copies);
  });
  check_launch("upsample_confusion_matrix");
}

}  // namespace cuda
}  // namespace gioada
