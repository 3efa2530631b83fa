// The operators as ExecuTorch calls them: arguments checked, outputs sized, kernels run. export/native/ops.py says what
// each computes.

#include <array>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <utility>

#include <executorch/runtime/core/event_tracer_hooks.h>
#include <executorch/runtime/core/exec_aten/util/tensor_util.h>
#include <executorch/runtime/kernel/kernel_includes.h>
#include <executorch/runtime/kernel/operator_registry.h>

#include "attention.h"
#include "kernels.h"
#include "linear.h"
#include "packed.h"
#include "threads.h"

namespace t5g2 {
namespace {

using executorch::aten::ArrayRef;
using executorch::aten::optional;
using executorch::aten::ScalarType;
using executorch::aten::SizesType;
using executorch::aten::Tensor;
using executorch::runtime::Error;
using executorch::runtime::EValue;
using executorch::runtime::internal::EventTracerProfileOpScope;
using executorch::runtime::Kernel;
using executorch::runtime::KernelRuntimeContext;
using executorch::runtime::Span;

// Fails the operator with a message unless `condition` holds.
#define REQUIRE(condition, format, ...)                                        \
  do {                                                                         \
    if (!(condition)) {                                                        \
      ET_LOG(Error, "t5g2::%s: " format, kOperator __VA_OPT__(, ) __VA_ARGS__); \
      ctx.fail(Error::InvalidArgument);                                        \
      return;                                                                  \
    }                                                                          \
  } while (false)

// float32 (or `type`), dense, of the given rank.
#define REQUIRE_TENSOR(tensor, rank, type)                                                                  \
  REQUIRE((tensor).dim() == (rank) && (tensor).scalar_type() == ScalarType::type, #tensor " has rank %d and type %d", \
          int((tensor).dim()), int((tensor).scalar_type()))

#define REQUIRE_LENGTH(tensor, count)                                                                    \
  REQUIRE((tensor).numel() == (count), #tensor " has %" PRId64 " elements where %" PRId64 " are expected", \
          int64_t((tensor).numel()), int64_t(count))

// A float32 vector or matrix of the given size.
#define REQUIRE_VECTOR(tensor, count) \
  REQUIRE_TENSOR(tensor, 1, Float);   \
  REQUIRE_LENGTH(tensor, count)
#define REQUIRE_MATRIX(tensor, count) \
  REQUIRE_TENSOR(tensor, 2, Float);   \
  REQUIRE_LENGTH(tensor, count)

#define RESIZE(tensor, ...) REQUIRE(resize(tensor, {__VA_ARGS__}), #tensor " cannot take its shape; it was planned smaller")

#define RESIZE_FLOATS(tensor, ...)                                                                             \
  REQUIRE((tensor).scalar_type() == ScalarType::Float, #tensor " has type %d", int((tensor).scalar_type()));   \
  RESIZE(tensor, __VA_ARGS__)

bool resize(Tensor& out, std::initializer_list<int64_t> shape) {
  std::array<SizesType, 5> sizes{};
  size_t n = 0;
  for (int64_t size : shape) sizes[n++] = SizesType(size);
  return executorch::runtime::resize_tensor(out, ArrayRef<SizesType>(sizes.data(), n)) == Error::Ok;
}

const float* data(const Tensor& t) { return t.const_data_ptr<float>(); }
const float* data(const optional<Tensor>& t) { return t.has_value() ? t->const_data_ptr<float>() : nullptr; }

bool known_layout(int64_t bits, int64_t group_size) {
  if (bits == 32) return group_size == 0;
  return (bits == 4 || bits == 8) && (group_size == 0 || group_size == 32 || group_size == 64 || group_size == 128);
}

Packed packed(const Tensor& weight, int64_t rows, int64_t columns, int64_t bits, int64_t group_size) {
  return {weight.const_data_ptr<uint8_t>(), rows, columns, bits, group_size};
}

#define REQUIRE_PACKED(w, weight)                                                                                         \
  REQUIRE(known_layout((w).bits, (w).group_size), "no format of %" PRId64 " bits in groups of %" PRId64, (w).bits,        \
          (w).group_size);                                                                                                \
  REQUIRE((w).rows > 0 && (w).rows <= kMostRows && (w).columns > 0, "a matrix [%" PRId64 ", %" PRId64 "]", (w).rows,      \
          (w).columns);                                                                                                   \
  REQUIRE((weight).scalar_type() == ScalarType::Byte && int64_t((weight).numel()) == (w).bytes(),                         \
          "a packed weight of %" PRId64 " bytes where [%" PRId64 ", %" PRId64 "] takes %" PRId64, int64_t((weight).numel()), \
          (w).rows, (w).columns, (w).bytes())

// Limits of what is multiplied with other sizes, so that no product overflows.
constexpr int64_t kMostRows = 1 << 28;
constexpr int64_t kMostHeads = 1 << 12;
constexpr int64_t kMostPositions = 1 << 28;
constexpr int64_t kMostSide = 1 << 14;

// Rows whose work is too small to hand to another thread one by one.
constexpr int64_t kRowsPerTask = 8;

void embedding(KernelRuntimeContext& ctx, const Tensor& ids, const Tensor& table, const Tensor& eoi,
               const optional<Tensor>& image_features, int64_t eoi_id, int64_t image_id, int64_t bits, int64_t group_size,
               double scale, Tensor& out) {
  constexpr const char* kOperator = "embedding";
  REQUIRE_TENSOR(ids, 1, Long);
  REQUIRE_TENSOR(eoi, 1, Float);
  const int64_t count = ids.numel(), hidden = eoi.numel();
  REQUIRE(hidden > 0, "eoi is empty");
  Packed w{nullptr, 16, hidden, bits, group_size};
  REQUIRE(known_layout(bits, group_size), "no format of %" PRId64 " bits in groups of %" PRId64, bits, group_size);
  w.rows = int64_t(table.numel()) / w.block_bytes() * 16;
  w = packed(table, w.rows, hidden, bits, group_size);
  REQUIRE_PACKED(w, table);
  if (image_features.has_value()) {
    const Tensor& features = *image_features;
    REQUIRE_MATRIX(features, count * hidden);
  }
  RESIZE_FLOATS(out, count, hidden);
  const int64_t* id = ids.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < count; ++i) {
    REQUIRE(id[i] >= 0 && id[i] < w.rows, "id %" PRId64 " is outside the table of %" PRId64 " rows", id[i], w.rows);
  }
  float* result = out.mutable_data_ptr<float>();
  for (int64_t i = 0; i < count; ++i) {
    float* row = result + i * hidden;
    if (id[i] == image_id && image_features.has_value()) {
      std::memcpy(row, data(image_features) + i * hidden, hidden * sizeof(float));
      continue;
    }
    if (id[i] == eoi_id) {
      std::memcpy(row, data(eoi), hidden * sizeof(float));
      continue;
    }
    const uint8_t* block = w.block(id[i] / 16);
    const uint16_t* scales = w.scales(id[i] / 16);
    const int64_t lane = id[i] % 16;
    for (int64_t k = 0; k < hidden; ++k) {
      float value;
      if (bits == 32) {
        std::memcpy(&value, block + (k * 16 + lane) * sizeof(float), sizeof(float));
      } else {
        if (bits == 8) {
          value = int8_t(block[(k / 4 * 16 + lane) * 4 + k % 4]);
        } else {
          const uint8_t both = block[(k / 8 * 16 + lane) * 4 + k % 4];
          value = float(k % 8 < 4 ? both & 15 : both >> 4) - 8.0f;
        }
        const uint32_t bits32 = uint32_t(scales[k / w.group() * 16 + lane]) << 16;
        float group_scale;
        std::memcpy(&group_scale, &bits32, sizeof(float));
        value *= group_scale;
      }
      row[k] = value * float(scale);
    }
  }
}

// In a profile, which of the products it is.
class ProfiledProduct {
 public:
  ProfiledProduct(KernelRuntimeContext& ctx, const char* name, int64_t count, const Packed& w)
      : scope_(ctx.internal_event_tracer(), ctx.internal_event_tracer() ? label(name, count, w) : nullptr) {}

 private:
  const char* label(const char* name, int64_t count, const Packed& w) {
    std::snprintf(text_, sizeof(text_), "%s [%" PRId64 ", %" PRId64 "] x %" PRId64, name, w.rows, w.columns, count);
    return text_;
  }

  char text_[96];
  const EventTracerProfileOpScope scope_;
};

void linear_op(KernelRuntimeContext& ctx, const Tensor& x, const Tensor& weight, const optional<Tensor>& bias, int64_t rows,
               int64_t bits, int64_t group_size, bool gelu, Tensor& out) {
  constexpr const char* kOperator = "linear";
  REQUIRE_TENSOR(x, 2, Float);
  const Packed w = packed(weight, rows, x.size(1), bits, group_size);
  REQUIRE_PACKED(w, weight);
  if (bias.has_value()) {
    REQUIRE_VECTOR(*bias, rows);
  }
  RESIZE_FLOATS(out, x.size(0), rows);
  LinearArguments a;
  a.weights = w;
  a.rows = a.stride = rows;
  a.bias = data(bias);
  a.gelu = gelu;
  a.out = out.mutable_data_ptr<float>();
  const ProfiledProduct profiled(ctx, kOperator, x.size(0), w);
  linear(data(x), x.size(0), a);
}

void geglu(KernelRuntimeContext& ctx, const Tensor& x, const Tensor& weight, int64_t rows, int64_t bits, int64_t group_size,
           Tensor& out) {
  constexpr const char* kOperator = "geglu";
  REQUIRE_TENSOR(x, 2, Float);
  REQUIRE(rows > 0 && rows <= kMostRows / 2, "%" PRId64 " rows", rows);
  const Packed w = packed(weight, (rows + 15) / 16 * 32, x.size(1), bits, group_size);
  REQUIRE_PACKED(w, weight);
  RESIZE_FLOATS(out, x.size(0), rows);
  LinearArguments a;
  a.weights = w;
  a.rows = a.stride = rows;
  a.gated = true;
  a.out = out.mutable_data_ptr<float>();
  const ProfiledProduct profiled(ctx, kOperator, x.size(0), w);
  linear(data(x), x.size(0), a);
}

void rms_norm(KernelRuntimeContext& ctx, const Tensor& x, const Tensor& weight, double eps, Tensor& out) {
  constexpr const char* kOperator = "rms_norm";
  REQUIRE_TENSOR(x, 2, Float);
  const int64_t rows = x.size(0), n = x.size(1);
  REQUIRE_VECTOR(weight, n);
  RESIZE_FLOATS(out, rows, n);
  float* y = out.mutable_data_ptr<float>();
  parallel(rows, kRowsPerTask, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) kernels().rms_norm_row(data(x) + r * n, data(weight), float(eps), n, y + r * n);
  });
}

// out0 = residual + x, out1 = its norm, row by row; what `row` makes of the two vectors [n] is the operator's.
template <class Row>
void add_and_norm(KernelRuntimeContext& ctx, const char* kOperator, const Tensor& residual, const Tensor& x,
                  const Tensor& first_vector, const Tensor& second_vector, double eps, Tensor& out0, Tensor& out1, Row row) {
  REQUIRE_TENSOR(residual, 2, Float);
  REQUIRE_TENSOR(x, 2, Float);
  const int64_t rows = x.size(0), n = x.size(1);
  REQUIRE_LENGTH(residual, rows * n);
  REQUIRE_VECTOR(first_vector, n);
  REQUIRE_VECTOR(second_vector, n);
  RESIZE_FLOATS(out0, rows, n);
  RESIZE_FLOATS(out1, rows, n);
  float *sum = out0.mutable_data_ptr<float>(), *normed = out1.mutable_data_ptr<float>();
  parallel(rows, kRowsPerTask, [&](int64_t first, int64_t last) {
    for (int64_t at = first * n; at < last * n; at += n) {
      row(data(residual) + at, data(x) + at, data(first_vector), data(second_vector), float(eps), n, sum + at, normed + at);
    }
  });
}

void add_rms_norm(KernelRuntimeContext& ctx, const Tensor& residual, const Tensor& x, const Tensor& post_weight,
                  const Tensor& weight, double eps, Tensor& out0, Tensor& out1) {
  add_and_norm(ctx, "add_rms_norm", residual, x, post_weight, weight, eps, out0, out1, kernels().add_rms_norm_row);
}

void add_layer_norm(KernelRuntimeContext& ctx, const Tensor& residual, const Tensor& x, const Tensor& weight,
                    const Tensor& bias, double eps, Tensor& out0, Tensor& out1) {
  add_and_norm(ctx, "add_layer_norm", residual, x, weight, bias, eps, out0, out1, kernels().add_layer_norm_row);
}

void rotary(KernelRuntimeContext& ctx, const Tensor& x, const optional<Tensor>& position, const Tensor& inverse_frequency,
            Tensor& out0, Tensor& out1) {
  constexpr const char* kOperator = "rotary";
  REQUIRE_TENSOR(x, 2, Float);
  REQUIRE_TENSOR(inverse_frequency, 1, Float);
  int64_t first = 0;
  if (position.has_value()) {
    REQUIRE_TENSOR(*position, 1, Long);
    REQUIRE_LENGTH(*position, 1);
    first = *position->const_data_ptr<int64_t>();
  }
  const int64_t rows = x.size(0), half = inverse_frequency.numel();
  REQUIRE(half > 0, "inverse_frequency is empty");
  REQUIRE(first >= 0 && first <= kMostPositions, "position %" PRId64, first);
  RESIZE_FLOATS(out0, rows, half);
  RESIZE_FLOATS(out1, rows, half);
  float *cos = out0.mutable_data_ptr<float>(), *sin = out1.mutable_data_ptr<float>();
  parallel(rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t i = 0; i < half; ++i) {
        const float angle = float(first + r) * data(inverse_frequency)[i];
        cos[r * half + i] = std::cos(angle);
        sin[r * half + i] = std::sin(angle);
      }
    }
  });
}

void patches(KernelRuntimeContext& ctx, const Tensor& pixels, int64_t patch, Tensor& out) {
  constexpr const char* kOperator = "patches";
  REQUIRE_TENSOR(pixels, 4, Float);
  const int64_t channels = pixels.size(1), pixel_side = pixels.size(2);
  REQUIRE(pixels.size(0) == 1 && pixels.size(3) == pixel_side, "pixels are not one square picture");
  REQUIRE(patch > 0 && patch <= pixel_side && pixel_side % patch == 0, "patches of %" PRId64 " pixels in %" PRId64, patch,
          pixel_side);
  const int64_t side = pixel_side / patch;
  RESIZE_FLOATS(out, side * side, channels * patch * patch);
  float* to = out.mutable_data_ptr<float>();
  for (int64_t i = 0; i < side * side; ++i) {
    const float* corner = data(pixels) + i / side * patch * pixel_side + i % side * patch;
    for (int64_t row = 0; row < channels * patch; ++row, to += patch) {
      std::memcpy(to, corner + (row / patch * pixel_side + row % patch) * pixel_side, patch * sizeof(float));
    }
  }
}

void average_pool(KernelRuntimeContext& ctx, const Tensor& x, int64_t side, int64_t pool, Tensor& out) {
  constexpr const char* kOperator = "average_pool";
  REQUIRE_TENSOR(x, 2, Float);
  const int64_t n = x.size(1);
  REQUIRE(side > 0 && side <= kMostSide && x.size(0) == side * side, "%" PRId64 " rows are no square of %" PRId64,
          int64_t(x.size(0)), side);
  REQUIRE(pool > 0 && pool <= side && side % pool == 0, "squares of %" PRId64 " in a side of %" PRId64, pool, side);
  const int64_t tokens = side / pool;
  RESIZE_FLOATS(out, tokens * tokens, n);
  float* y = out.mutable_data_ptr<float>();
  for (int64_t i = 0; i < tokens * tokens; ++i, y += n) {
    const float* corner = data(x) + (i / tokens * side + i % tokens) * pool * n;
    std::memset(y, 0, n * sizeof(float));
    for (int64_t r = 0; r < pool; ++r) {
      for (int64_t j = 0; j < pool * n; ++j) y[j % n] += corner[r * side * n + j];
    }
    for (int64_t j = 0; j < n; ++j) y[j] /= float(pool * pool);
  }
}

// The head size of qkv [rows, (heads + 2 kv heads) * d]; 0 where the numbers do not fit.
int64_t head_size(const Tensor& qkv, int64_t heads, int64_t kv_heads) {
  if (qkv.dim() != 2 || heads < 1 || heads > kMostHeads || kv_heads < 1 || heads % kv_heads) return 0;
  const int64_t parts = heads + 2 * kv_heads;
  return qkv.size(1) % parts ? 0 : qkv.size(1) / parts;
}

void attention_op(KernelRuntimeContext& ctx, const Tensor& qkv, const optional<Tensor>& cos, const optional<Tensor>& sin,
                  const optional<Tensor>& q_norm, const optional<Tensor>& k_norm, int64_t num_heads, int64_t num_kv_heads,
                  int64_t window, double scale, double eps, bool exact, Tensor& out) {
  constexpr const char* kOperator = "attention";
  REQUIRE_TENSOR(qkv, 2, Float);
  const int64_t rows = qkv.size(0), d = head_size(qkv, num_heads, num_kv_heads);
  REQUIRE(d > 0, "%d columns do not divide into %" PRId64 " heads and twice %" PRId64 " kv heads", int(qkv.size(1)), num_heads,
          num_kv_heads);
  REQUIRE(window >= 0 && window <= kMostPositions, "a window of %" PRId64, window);
  REQUIRE(cos.has_value() == sin.has_value() && q_norm.has_value() == k_norm.has_value(), "one of a pair is missing");
  if (cos.has_value()) {
    REQUIRE(d % 2 == 0, "rotary positions need an even head size, not %" PRId64, d);
    REQUIRE_MATRIX(*cos, rows * (d / 2));
    REQUIRE_MATRIX(*sin, rows * (d / 2));
  }
  if (q_norm.has_value()) {
    REQUIRE_VECTOR(*q_norm, d);
    REQUIRE_VECTOR(*k_norm, d);
  }
  RESIZE_FLOATS(out, rows, num_heads * d);
  AttentionArguments a{};
  a.qkv = data(qkv);
  a.cos = data(cos);
  a.sin = data(sin);
  a.q_norm = data(q_norm);
  a.k_norm = data(k_norm);
  a.eps = float(eps);
  a.scale = float(scale);
  a.length = rows;
  a.heads = num_heads;
  a.kv_heads = num_kv_heads;
  a.d = d;
  a.window = window;
  a.out = out.mutable_data_ptr<float>();
  attention(a, exact);
}

void cross_kv(KernelRuntimeContext& ctx, const Tensor& x, ArrayRef<Tensor> weights, ArrayRef<Tensor> k_norms,
              int64_t num_heads, int64_t num_kv_heads, int64_t bits, int64_t group_size, double eps, bool half, Tensor& out) {
  constexpr const char* kOperator = "cross_kv";
  REQUIRE_TENSOR(x, 2, Float);
  REQUIRE(weights.size() == k_norms.size() && weights.size() > 0, "%zu weights and %zu norms", weights.size(), k_norms.size());
  REQUIRE(num_heads > 0 && num_heads <= kMostHeads && num_kv_heads > 0 && num_heads % num_kv_heads == 0,
          "%" PRId64 " heads, %" PRId64 " kv heads", num_heads, num_kv_heads);
  const int64_t length = x.size(0), d = k_norms[0].numel(), layers = int64_t(weights.size());
  const int64_t rows = (num_heads + 2 * num_kv_heads) * d, wide = 2 * num_kv_heads * d;
  REQUIRE(num_heads * d % kBlockRows == 0, "%" PRId64 " query rows are no whole number of blocks", num_heads * d);
  for (int64_t i = 0; i < layers; ++i) {
    const Packed w = packed(weights[i], rows, x.size(1), bits, group_size);
    REQUIRE_PACKED(w, weights[i]);
    REQUIRE_VECTOR(k_norms[i], d);
  }
  REQUIRE(out.scalar_type() == (half ? ScalarType::Half : ScalarType::Float), "out has type %d", int(out.scalar_type()));
  RESIZE(out, layers, 2, num_kv_heads, length, d);
  uint8_t* result = static_cast<uint8_t*>(out.mutable_data_ptr());
  const int64_t size = half ? 2 : 4;
  const Packed w = packed(weights[0], rows, x.size(1), bits, group_size);
  by_slices(length, w, [&](int64_t first_row, int64_t count) {
    static thread_local Buffer buffer;
    float* kv = reinterpret_cast<float*>(buffer.reserve(count * wide * sizeof(float)));  // [count][2 * kv heads][d]
    const Activations prepared = prepare(data(x) + first_row * x.size(1), count, w);      // once for all layers
    for (int64_t i = 0; i < layers; ++i) {
      LinearArguments a;
      a.weights = packed(weights[i], rows, x.size(1), bits, group_size);
      a.first_block = num_heads * d / kBlockRows;
      a.rows = a.stride = wide;
      a.out = kv;
      linear(prepared, a);
      parallel(count, kRowsPerTask, [&](int64_t first, int64_t last) {
        for (int64_t r = first; r < last; ++r) {
          for (int64_t h = 0; h < 2 * num_kv_heads; ++h) {
            float* entry = kv + r * wide + h * d;
            if (h < num_kv_heads) kernels().rms_norm_row(entry, data(k_norms[i]), float(eps), d, entry);
            uint8_t* to = result + ((i * 2 * num_kv_heads + h) * length + first_row + r) * d * size;
            store_entry(entry, d, half, to);
          }
        }
      });
    }
  });
}

void merged_attention_op(KernelRuntimeContext& ctx, const Tensor& qkv, const Tensor& cos, const Tensor& sin,
                         const Tensor& q_norm, const Tensor& k_norm, const Tensor& position, const Tensor& cache,
                         const Tensor& cross, int64_t layer, int64_t start, int64_t slots, int64_t window, int64_t num_heads,
                         int64_t num_kv_heads, double scale, double eps, Tensor& out) {
  constexpr const char* kOperator = "merged_attention";
  REQUIRE_TENSOR(qkv, 2, Float);
  const int64_t rows = qkv.size(0), d = head_size(qkv, num_heads, num_kv_heads);
  REQUIRE(d > 0 && d % 16 == 0, "a head size of %" PRId64 " is not a multiple of 16", d);
  REQUIRE_MATRIX(cos, rows * (d / 2));
  REQUIRE_MATRIX(sin, rows * (d / 2));
  REQUIRE_VECTOR(q_norm, d);
  REQUIRE_VECTOR(k_norm, d);
  REQUIRE_TENSOR(position, 1, Long);
  REQUIRE_LENGTH(position, 1);
  const bool half = cache.scalar_type() == ScalarType::Half;
  REQUIRE(half || cache.scalar_type() == ScalarType::Float, "cache has type %d", int(cache.scalar_type()));
  REQUIRE(cross.scalar_type() == cache.scalar_type(), "cross has type %d, cache %d", int(cross.scalar_type()),
          int(cache.scalar_type()));
  REQUIRE(cross.dim() == 5 && cross.size(1) == 2 && cross.size(2) == num_kv_heads && cross.size(4) == d && layer >= 0 &&
              layer < cross.size(0),
          "cross K/V do not have the shape [layers, 2, %" PRId64 ", S, %" PRId64 "]", num_kv_heads, d);
  REQUIRE(slots > 0 && slots <= kMostPositions && window >= 0 && window <= kMostPositions,
          "%" PRId64 " slots, a window of %" PRId64, slots, window);
  const int64_t entries = num_kv_heads * slots * d;
  REQUIRE(start >= 0 && start <= int64_t(cache.numel()) && start + 2 * entries <= int64_t(cache.numel()),
          "a cache of %" PRId64 " elements does not hold this layer's from %" PRId64, int64_t(cache.numel()), start);
  const int64_t first = position.const_data_ptr<int64_t>()[0];
  REQUIRE(first >= 0 && first <= kMostPositions, "position %" PRId64, first);
  REQUIRE(window > 0 ? slots >= std::min(first, window - 1) + rows : slots >= first + rows,
          "%" PRId64 " slots do not hold what position %" PRId64 " sees", slots, first + rows - 1);
  RESIZE_FLOATS(out, rows, num_heads * d);

  const int64_t size = half ? 2 : 4, source = cross.size(3), cross_entries = num_kv_heads * source * d;
  // The caller's memory, written in place: see the schemas in export/native/ops.py.
  uint8_t* self = static_cast<uint8_t*>(const_cast<Tensor&>(cache).mutable_data_ptr()) + start * size;
  const uint8_t* other = static_cast<const uint8_t*>(cross.const_data_ptr()) + layer * 2 * cross_entries * size;
  MergedArguments a{};
  a.qkv = data(qkv);
  a.cos = data(cos);
  a.sin = data(sin);
  a.q_norm = data(q_norm);
  a.k_norm = data(k_norm);
  a.eps = float(eps);
  a.scale = float(scale);
  a.rows = rows;
  a.position = first;
  a.heads = num_heads;
  a.kv_heads = num_kv_heads;
  a.d = d;
  a.window = window;
  a.slots = slots;
  a.source = source;
  a.half = half;
  a.keys = self;
  a.values = self + entries * size;
  a.cross_keys = other;
  a.cross_values = other + cross_entries * size;
  a.out = out.mutable_data_ptr<float>();
  merged_attention(a);
}

// ---- registration --------------------------------------------------------------------------------------------------

// ExecuTorch's own wrapper takes one output only; these take any number.
template <class T>
struct Unbox {
  static T from(EValue& v) { return v.to<T>(); }
};
template <>
struct Unbox<const Tensor&> {
  static const Tensor& from(EValue& v) { return v.toTensor(); }
};
template <>
struct Unbox<Tensor&> {
  static Tensor& from(EValue& v) { return v.toTensor(); }
};
template <>
struct Unbox<const optional<Tensor>&> {
  static optional<Tensor> from(EValue& v) { return v.toOptional<Tensor>(); }
};
template <>
struct Unbox<ArrayRef<Tensor>> {
  static ArrayRef<Tensor> from(EValue& v) { return v.toTensorList(); }
};

template <class... Arguments, size_t... I>
void call(void (*op)(KernelRuntimeContext&, Arguments...), KernelRuntimeContext& ctx, Span<EValue*> stack,
          std::index_sequence<I...>) {
  if (stack.size() < sizeof...(Arguments)) {
    ET_LOG(Error, "t5g2: %zu arguments where %zu are expected", stack.size(), sizeof...(Arguments));
    ctx.fail(Error::InvalidArgument);
    return;
  }
  try {
    op(ctx, Unbox<Arguments>::from(*stack[I])...);
  } catch (const std::bad_alloc&) {
    ET_LOG(Error, "t5g2: out of memory");
    ctx.fail(Error::MemoryAllocationFailed);
  }
}

template <auto Op>
struct Boxed;

template <class... Arguments, void (*Op)(KernelRuntimeContext&, Arguments...)>
struct Boxed<Op> {
  static void run(const char* name, KernelRuntimeContext& ctx, Span<EValue*> stack) {
    const EventTracerProfileOpScope profiled(ctx.internal_event_tracer(), name);
    call<Arguments...>(Op, ctx, stack, std::index_sequence_for<Arguments...>{});
  }
};

#define OPERATOR(name, op)                                              \
  Kernel("t5g2::" name ".out", [](KernelRuntimeContext& ctx, Span<EValue*> stack) { \
    Boxed<op>::run("t5g2::" name, ctx, stack);                          \
  })

const Kernel kOperators[] = {
    OPERATOR("embedding", embedding),
    OPERATOR("linear", linear_op),
    OPERATOR("geglu", geglu),
    OPERATOR("rms_norm", rms_norm),
    OPERATOR("add_rms_norm", add_rms_norm),
    OPERATOR("add_layer_norm", add_layer_norm),
    OPERATOR("rotary", rotary),
    OPERATOR("patches", patches),
    OPERATOR("average_pool", average_pool),
    OPERATOR("attention", attention_op),
    OPERATOR("cross_kv", cross_kv),
    OPERATOR("merged_attention", merged_attention_op),
};

[[maybe_unused]] const Error kRegistered = executorch::runtime::register_kernels(kOperators);

}  // namespace
}  // namespace t5g2

extern "C" {

// The kernels in use: "portable", "avx2", …
__attribute__((visibility("default"))) const char* t5g2_kernels() { return t5g2::kernels().name; }

// Those that this CPU runs, null-terminated; T5G2_CPU takes one of them.
__attribute__((visibility("default"))) const char* const* t5g2_available_kernels() { return t5g2::available_kernels(); }

// Changes the kernels in use; false where this CPU does not run them. Not while a program runs.
__attribute__((visibility("default"))) bool t5g2_use_kernels(const char* name) { return t5g2::use_kernels(name); }
}
