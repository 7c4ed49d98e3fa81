// CPU kernel: predicts the classes of a block of pixel rows, then converts them to the result's
// type.

#include "upsample_argmax.h"

#include "cpu/argmax.h"

namespace gioada {
inline namespace GIOADA_ISA {

// Expects at least one pixel.
void upsample_argmax(const UpsampleArgmax& op, int threads) {
  const int64_t width = op.width(), pixels = op.batch() * op.height() * width;
  with_label_type(op.predictions.type, [&](auto zero) {
    using Class = decltype(zero);
    Class* predictions = op.predictions.as<Class>();
    prefer_huge_pages(predictions, pixels * static_cast<int64_t>(sizeof(Class)));
    with_float_type(op.logits.type, [&](auto logit) {
      predict_blocks<decltype(logit)>(op, threads, [&](const PredictedRows& rows) {
        for (int64_t y = rows.begin; y < rows.end; ++y) {
          const int32_t* predicted = rows.row(y);
          Class* out = predictions + (rows.n * op.height() + y) * width;
          for (int64_t x = 0; x < width; ++x) out[x] = static_cast<Class>(predicted[x]);
        }
      });
    });
  });
}

}  // namespace GIOADA_ISA
}  // namespace gioada
