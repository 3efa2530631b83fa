// The operators as ExecuTorch finds them: what they accept they compute, and what they do not accept is an error with a
// message.

#include <array>
#include <functional>
#include <memory>
#include <string>

#include <executorch/runtime/kernel/kernel_runtime_context.h>
#include <executorch/runtime/kernel/operator_registry.h>
#include <executorch/runtime/platform/platform.h>

#include "testing.h"

namespace t5g2::test {
namespace {

using executorch::aten::ScalarType;
using executorch::aten::Tensor;
using executorch::aten::TensorImpl;
using executorch::runtime::BoxedEvalueList;
using executorch::runtime::Error;
using executorch::runtime::EValue;
using executorch::runtime::KernelRuntimeContext;

std::string last_message;

void remember(et_timestamp_t, et_pal_log_level_t, const char*, const char*, size_t, const char* message, size_t length) {
  last_message.assign(message, length);
}

int64_t element_size(ScalarType type) {
  switch (type) {
    case ScalarType::Byte: return 1;
    case ScalarType::Half: return 2;
    case ScalarType::Float: return 4;
    default: return 8;
  }
}

using Shape = std::vector<int32_t>;

// A tensor that owns exactly its memory.
class Owned {
 public:
  Owned(ScalarType type, Shape shape, executorch::aten::TensorShapeDynamism dynamism = {})
      : type_(type), shape_(std::move(shape)), memory_(elements() * element_size(type)) {
    for (size_t i = 0; i < shape_.size(); ++i) {
      order_.push_back(uint8_t(i));
      int32_t stride = 1;
      for (size_t j = i + 1; j < shape_.size(); ++j) stride *= shape_[j];
      strides_.push_back(stride);
    }
    std::memset(memory_.data(), 0, elements() * element_size(type));
    impl_ = std::make_unique<TensorImpl>(type, shape_.size(), shape_.data(), memory_.data(), order_.data(), strides_.data(),
                                         dynamism);
  }
  int64_t elements() const {
    int64_t count = 1;
    for (int32_t size : shape_) count *= size;
    return count;
  }
  const Shape& shape() const { return shape_; }
  ScalarType type() const { return type_; }
  Tensor tensor() { return Tensor(impl_.get()); }
  uint8_t* bytes() { return memory_.data(); }
  float* floats() { return reinterpret_cast<float*>(bytes()); }
  int64_t* longs() { return reinterpret_cast<int64_t*>(bytes()); }

 private:
  ScalarType type_;
  Shape shape_;
  std::vector<uint8_t> order_;
  std::vector<int32_t> strides_;
  Exact<uint8_t> memory_;
  std::unique_ptr<TensorImpl> impl_;
};

// One argument of an operator.
struct Argument {
  std::shared_ptr<Owned> tensor;                 // a tensor, or
  std::vector<std::shared_ptr<Owned>> list;      // a list of them, or
  EValue value;                                  // anything else; None too
  bool is_list = false, is_output = false;
  bool any_size = false;  // along its first dimension
};

Argument tensor(ScalarType type, Shape shape) { return {std::make_shared<Owned>(type, std::move(shape)), {}, {}}; }
Argument floats(Random& random, Shape shape) {
  Argument a = tensor(ScalarType::Float, std::move(shape));
  for (int64_t i = 0; i < a.tensor->elements(); ++i) a.tensor->floats()[i] = random.value();
  return a;
}
Argument longs(std::initializer_list<int64_t> values) {
  Argument a = tensor(ScalarType::Long, {int32_t(values.size())});
  std::copy(values.begin(), values.end(), a.tensor->longs());
  return a;
}
Argument packed(const Matrix& m) {
  Argument a = tensor(ScalarType::Byte, {int32_t(m.bytes.size())});
  std::copy(m.bytes.begin(), m.bytes.end(), a.tensor->bytes());
  return a;
}
// Outputs take any shape up to the planned one, as in a program whose source length varies.
Argument output(ScalarType type, Shape shape) {
  Argument a{std::make_shared<Owned>(type, std::move(shape), executorch::aten::TensorShapeDynamism::DYNAMIC_BOUND), {}, {}};
  a.is_output = true;
  return a;
}
Argument any_size(Argument a) {
  a.any_size = true;
  return a;
}
Argument list(std::vector<Argument> tensors) {
  Argument a;
  a.is_list = true;
  for (Argument& t : tensors) a.list.push_back(t.tensor);
  return a;
}
Argument number(int64_t i) { return {nullptr, {}, EValue(i)}; }
Argument real(double d) { return {nullptr, {}, EValue(d)}; }
Argument flag(bool b) { return {nullptr, {}, EValue(b)}; }
Argument none() { return {}; }

using Arguments = std::vector<Argument>;

Error call(const char* name, Arguments& arguments) {
  const auto op = executorch::runtime::get_op_function_from_registry(name);
  CHECK(op.ok(), "%s is not registered", name);
  struct List {
    std::vector<EValue> values;
    std::vector<EValue*> pointers;
    std::vector<Tensor> tensors;
    std::unique_ptr<BoxedEvalueList<Tensor>> boxed;
  };
  std::vector<std::unique_ptr<List>> lists;
  std::vector<EValue> values;
  for (Argument& a : arguments) {
    if (a.is_list) {
      auto l = std::make_unique<List>();
      for (auto& t : a.list) l->values.emplace_back(t->tensor());
      for (EValue& v : l->values) l->pointers.push_back(&v);
      l->tensors.assign(std::max<size_t>(1, a.list.size()), Tensor(nullptr));
      l->pointers.resize(std::max<size_t>(1, a.list.size()));
      l->boxed = std::make_unique<BoxedEvalueList<Tensor>>(l->pointers.data(), l->tensors.data(), int(a.list.size()));
      values.emplace_back(l->boxed.get());
      lists.push_back(std::move(l));
    } else if (a.tensor) {
      values.emplace_back(a.tensor->tensor());
    } else {
      values.push_back(a.value);
    }
  }
  std::vector<EValue*> stack;
  for (EValue& v : values) stack.push_back(&v);
  KernelRuntimeContext context;
  last_message.clear();
  (*op)(context, {stack.data(), stack.size()});
  return context.failure_state();
}

// An operator with arguments that it takes; made anew for every call, as some are written to.
struct Case {
  const char* name;
  std::function<Arguments(Random&)> make;
};

constexpr int32_t kRows = 5, kHidden = 64, kD = 16, kHeads = 4, kKvHeads = 2, kSource = 9, kLayers = 2, kSlots = 12;
constexpr int64_t kWide = (kHeads + 2 * kKvHeads) * kD;

std::vector<Case> cases() {
  return {
      {"t5g2::embedding.out",
       [](Random& r) {
         return Arguments{longs({0, 3, 39, 7, 8}), packed(random_matrix(r, 40, kHidden, 4, 32)), floats(r, {kHidden}),
                          floats(r, {kRows, kHidden}), number(7), number(8), number(4), number(32), real(8),
                          output(ScalarType::Float, {kRows, kHidden})};
       }},
      {"t5g2::linear.out",
       [](Random& r) {
         return Arguments{floats(r, {kRows, kHidden}), packed(random_matrix(r, 40, kHidden, 8, 0)), floats(r, {40}), number(40),
                          number(8), number(0), flag(true), output(ScalarType::Float, {kRows, 40})};
       }},
      {"t5g2::geglu.out",
       [](Random& r) {
         return Arguments{floats(r, {kRows, kHidden}), packed(random_matrix(r, 64, kHidden, 4, 64)), number(24), number(4),
                          number(64), output(ScalarType::Float, {kRows, 24})};
       }},
      {"t5g2::rms_norm.out",
       [](Random& r) {
         return Arguments{floats(r, {kRows, kHidden}), floats(r, {kHidden}), real(1e-6),
                          output(ScalarType::Float, {kRows, kHidden})};
       }},
      {"t5g2::add_rms_norm.out",
       [](Random& r) {
         return Arguments{floats(r, {kRows, kHidden}), floats(r, {kRows, kHidden}), floats(r, {kHidden}), floats(r, {kHidden}),
                          real(1e-6), output(ScalarType::Float, {kRows, kHidden}), output(ScalarType::Float, {kRows, kHidden})};
       }},
      {"t5g2::add_layer_norm.out",
       [](Random& r) {
         return Arguments{floats(r, {kRows, kHidden}), floats(r, {kRows, kHidden}), floats(r, {kHidden}), floats(r, {kHidden}),
                          real(1e-6), output(ScalarType::Float, {kRows, kHidden}), output(ScalarType::Float, {kRows, kHidden})};
       }},
      {"t5g2::rotary.out",
       [](Random& r) {
         return Arguments{floats(r, {kRows, kHidden}), longs({5}), any_size(floats(r, {kD / 2})),
                          output(ScalarType::Float, {kRows, kD / 2}), output(ScalarType::Float, {kRows, kD / 2})};
       }},
      {"t5g2::patches.out",
       [](Random& r) {
         return Arguments{floats(r, {1, 3, 28, 28}), number(14), output(ScalarType::Float, {4, 588})};
       }},
      {"t5g2::average_pool.out",
       [](Random& r) {
         return Arguments{floats(r, {16, kHidden}), number(4), number(2), output(ScalarType::Float, {4, kHidden})};
       }},
      {"t5g2::attention.out",
       [](Random& r) {
         return Arguments{floats(r, {kRows, kWide}), floats(r, {kRows, kD / 2}), floats(r, {kRows, kD / 2}), floats(r, {kD}),
                          floats(r, {kD}), number(kHeads), number(kKvHeads), number(3), real(0.25), real(1e-6), flag(true),
                          output(ScalarType::Float, {kRows, kHeads * kD})};
       }},
      {"t5g2::cross_kv.out",
       [](Random& r) {
         return Arguments{floats(r, {kSource, kHidden}),
                          list({packed(random_matrix(r, kWide, kHidden, 4, 32)),
                                packed(random_matrix(r, kWide, kHidden, 4, 32))}),
                          list({floats(r, {kD}), floats(r, {kD})}), number(kHeads), number(kKvHeads), number(4), number(32),
                          real(1e-6), flag(true), output(ScalarType::Half, {kLayers, 2, kKvHeads, kSource, kD})};
       }},
      {"t5g2::merged_attention.out",
       [](Random& r) {
         return Arguments{floats(r, {kRows, kWide}), floats(r, {kRows, kD / 2}), floats(r, {kRows, kD / 2}), floats(r, {kD}),
                          floats(r, {kD}), longs({20}), tensor(ScalarType::Half, {2 * 2 * kKvHeads * kSlots * kD}),
                          tensor(ScalarType::Half, {kLayers, 2, kKvHeads, kSource, kD}), number(1),
                          number(2 * kKvHeads * kSlots * kD), number(kSlots), number(8), number(kHeads), number(kKvHeads),
                          real(0.25), real(1e-6), output(ScalarType::Float, {kRows, kHeads * kD})};
       }},
  };
}

void must_fail(const Case& c, Arguments& arguments, size_t at, const char* what) {
  const Error error = call(c.name, arguments);
  CHECK(error != Error::Ok, "%s takes argument %d with %s", c.name, int(at), what);
  CHECK(!last_message.empty(), "%s refuses argument %d with %s without a message", c.name, int(at), what);
}

Argument with_shape(const Owned& t, Shape shape) { return tensor(t.type(), std::move(shape)); }

// Shapes next to `shape` that are wrong wherever another argument says what is right.
std::vector<std::pair<const char*, Shape>> wrong_ranks(const Shape& shape) {
  Shape more = shape, all = {1};
  more.insert(more.begin(), 1);
  for (int32_t size : shape) all[0] *= size;
  if (shape.size() == 1) all = {1, all[0]};
  return {{"a dimension more", more}, {"another rank", all}};
}

void test_tensors(const Case& c, Random& random) {
  const Arguments good = c.make(random);
  for (size_t at = 0; at < good.size(); ++at) {
    const auto attempt = [&](Argument wrong, const char* what, bool must) {
      Arguments arguments = c.make(random);
      arguments[at] = std::move(wrong);
      if (must) {
        must_fail(c, arguments, at, what);
      } else {
        (void)call(c.name, arguments);  // may be fine; must not crash
      }
    };
    if (good[at].is_list) {
      attempt(list({}), "no tensors", true);
      Argument fewer = good[at];
      fewer.list.pop_back();
      attempt(fewer, "a tensor less", true);
      Argument smaller = good[at];
      Shape shape = smaller.list[1]->shape();
      --shape[0];
      smaller.list[1] = std::make_shared<Owned>(smaller.list[1]->type(), shape);
      attempt(smaller, "a smaller tensor", true);
      Argument other = good[at];
      other.list[1] = std::make_shared<Owned>(ScalarType::Long, other.list[1]->shape());
      attempt(other, "another type in its list", true);
      continue;
    }
    if (!good[at].tensor) continue;
    const Owned& t = *good[at].tensor;
    const bool is_output = good[at].is_output;
    for (ScalarType type : {ScalarType::Double, ScalarType::Long, ScalarType::Half, ScalarType::Float, ScalarType::Byte}) {
      if (type == t.type()) continue;
      Argument wrong{std::make_shared<Owned>(type, t.shape()), {}, {}};
      attempt(wrong, "another type", true);
    }
    const bool flat = t.type() == ScalarType::Byte || t.shape().size() == 1;
    if (t.shape().size() > 1 || t.type() == ScalarType::Float || t.type() == ScalarType::Long) {
      for (auto& [what, shape] : wrong_ranks(t.shape())) attempt(with_shape(t, shape), what, true);
    }
    for (size_t dim = 0; dim < t.shape().size(); ++dim) {
      for (int change : {-1, 1}) {
        Shape shape = t.shape();
        shape[dim] += change;
        // A larger output is only planned too large; a larger cache or table has room to spare.
        const bool roomy = change > 0 && (is_output || flat);
        const bool free =
            !is_output && (at == 0 || good[at].any_size || (shape.size() == 5 && (dim == 0 || dim == 3)));
        attempt(is_output ? output(t.type(), shape) : with_shape(t, shape),
                change < 0 ? "a size less by one" : "a size more by one", !roomy && !free);
      }
      Shape shape = t.shape();
      shape[dim] = 0;
      attempt(is_output ? output(t.type(), shape) : with_shape(t, shape), "no elements", at != 0 && shape.size() != 5);
    }
  }
}

void test_numbers(const Case& c, Random& random) {
  const Arguments good = c.make(random);
  for (size_t at = 0; at < good.size(); ++at) {
    if (good[at].is_list || good[at].tensor || !good[at].value.isInt()) continue;
    for (int64_t wrong : {int64_t(-1), int64_t(0), int64_t(1), int64_t(3), int64_t(5), int64_t(7), int64_t(16), int64_t(1000),
                          int64_t(1) << 31, int64_t(1) << 40, int64_t(1) << 62, INT64_MAX, INT64_MIN}) {
      Arguments arguments = c.make(random);
      arguments[at] = number(wrong);
      (void)call(c.name, arguments);  // some are right; none may crash
    }
  }
  Arguments fewer = c.make(random);
  fewer.pop_back();
  must_fail(c, fewer, fewer.size(), "nothing");
}

void refused(const char* name, size_t at, Argument wrong, const char* what, Random& random) {
  for (const Case& c : cases()) {
    if (std::strcmp(c.name, name)) continue;
    Arguments arguments = c.make(random);
    arguments[at] = std::move(wrong);
    must_fail(c, arguments, at, what);
  }
}

void test_known_mistakes(Random& random) {
  refused("t5g2::embedding.out", 0, longs({0, 1, 48, 2, 3}), "an id beyond the table", random);
  refused("t5g2::embedding.out", 0, longs({0, 1, -1, 2, 3}), "a negative id", random);
  refused("t5g2::embedding.out", 6, number(2), "2 bits", random);
  refused("t5g2::embedding.out", 7, number(33), "groups of 33", random);
  refused("t5g2::linear.out", 3, number(64), "rows that the weight does not have", random);
  refused("t5g2::linear.out", 3, number(-16), "a negative number of rows", random);
  refused("t5g2::linear.out", 3, number(0), "no rows", random);
  refused("t5g2::linear.out", 4, number(4), "fewer bits than the weight has", random);
  refused("t5g2::linear.out", 5, number(-32), "a negative group", random);
  refused("t5g2::geglu.out", 2, number(33), "rows that the weight does not have", random);
  refused("t5g2::attention.out", 1, none(), "cosines missing", random);
  refused("t5g2::attention.out", 4, none(), "a norm missing", random);
  refused("t5g2::attention.out", 5, number(3), "heads that are no multiple of the kv heads", random);
  refused("t5g2::attention.out", 6, number(0), "no kv heads", random);
  refused("t5g2::attention.out", 7, number(-1), "a negative window", random);
  refused("t5g2::cross_kv.out", 3, number(0), "no heads", random);
  refused("t5g2::cross_kv.out", 8, flag(false), "an output of the other type", random);
  refused("t5g2::merged_attention.out", 5, longs({-1}), "a negative position", random);
  refused("t5g2::merged_attention.out", 8, number(kLayers), "a layer beyond the last", random);
  refused("t5g2::merged_attention.out", 8, number(-1), "a negative layer", random);
  refused("t5g2::merged_attention.out", 9, number(-1), "a negative start", random);
  refused("t5g2::merged_attention.out", 9, number(2 * kKvHeads * kSlots * kD + 1), "a start too late in the cache", random);
  refused("t5g2::merged_attention.out", 10, number(kSlots - 1), "a ring too small for its window", random);
  refused("t5g2::merged_attention.out", 11, number(0), "no window, and more positions than slots", random);
  refused("t5g2::merged_attention.out", 11, number(-1), "a negative window", random);
}

// Through the registry comes what the kernels compute.
void test_linear_result(Random& random) {
  const Matrix w = random_matrix(random, 40, 63, 4, 32);
  Arguments a{floats(random, {kRows, 63}), packed(w), none(), number(40), number(4), number(32), flag(false),
              output(ScalarType::Float, {2 * kRows, 40})};
  CHECK(call("t5g2::linear.out", a) == Error::Ok, "%s", last_message.c_str());
  CHECK(a[7].tensor->tensor().size(0) == kRows, "the output keeps its planned size");
  for (int64_t r = 0; r < kRows; ++r) {
    const Row row = quantize(a[0].tensor->floats() + r * 63, 63);
    for (int64_t n = 0; n < 40; ++n) {
      const float right = dot(w, n, row.q.data()) * row.scale, result = a[7].tensor->floats()[r * 40 + n];
      CHECK(result == right, "row %d, column %d is %.9g where %.9g is right", int(r), int(n), result, right);
    }
  }
}

void test_embedding_result(Random& random) {
  for (int64_t bits : {4, 8, 32}) {
    const Matrix w = random_matrix(random, 40, 50, bits, 0);
    Arguments a{longs({0, 39, 7, 8, 13}), packed(w), floats(random, {50}), floats(random, {kRows, 50}), number(7), number(8),
                number(bits), number(0), real(3), output(ScalarType::Float, {kRows, 50})};
    CHECK(call("t5g2::embedding.out", a) == Error::Ok, "%s", last_message.c_str());
    const float *result = a[9].tensor->floats(), *eoi = a[2].tensor->floats(), *features = a[3].tensor->floats();
    for (int64_t i = 0; i < kRows; ++i) {
      const int64_t id = a[0].tensor->longs()[i];
      for (int64_t k = 0; k < 50; ++k) {
        float right = bits == 32 ? w.floats[id * 50 + k] : float(w.value(id, k)) * w.scales[id];
        right = id == 7 ? eoi[k] : id == 8 ? features[i * 50 + k] : right * 3;
        CHECK(result[i * 50 + k] == right, "%d bits, id %d, column %d", int(bits), int(id), int(k));
      }
    }
  }
}

// Keys normed, values as they are, in the layout that merged attention reads.
void test_cross_kv_result(Random& random) {
  const Matrix layers[] = {random_matrix(random, kWide, kHidden, 8, 32), random_matrix(random, kWide, kHidden, 8, 32)};
  Arguments a{floats(random, {kSource, kHidden}), list({packed(layers[0]), packed(layers[1])}),
              list({floats(random, {kD}), floats(random, {kD})}), number(kHeads), number(kKvHeads), number(8), number(32),
              real(1e-6), flag(false), output(ScalarType::Float, {kLayers, 2, kKvHeads, kSource, kD})};
  CHECK(call("t5g2::cross_kv.out", a) == Error::Ok, "%s", last_message.c_str());
  const float* result = a[9].tensor->floats();
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    for (int64_t h = 0; h < 2 * kKvHeads; ++h) {
      for (int64_t s = 0; s < kSource; ++s, result += kD) {
        const Row row = quantize(a[0].tensor->floats() + s * kHidden, kHidden);
        double right[kD], squares = 0;
        for (int64_t x = 0; x < kD; ++x) {
          right[x] = dot(layers[layer], (kHeads + h) * kD + x, row.q.data()) * row.scale;
          squares += right[x] * right[x];
        }
        if (h < kKvHeads) {
          for (int64_t x = 0; x < kD; ++x) right[x] *= a[2].list[layer]->floats()[x] / std::sqrt(squares / kD + 1e-6);
        }
        const double error = worst(result, right, kD);
        CHECK(error < 5e-6, "layer %d, head %d, source %d: off by %.2g", int(layer), int(h), int(s), error);
      }
    }
  }
}

}  // namespace

void test_operators(Random& random) {
  executorch::runtime::register_pal(executorch::runtime::PalImpl::create(remember, __FILE__));
  for (const Case& c : cases()) {
    Arguments arguments = c.make(random);
    const Error error = call(c.name, arguments);
    CHECK(error == Error::Ok, "%s refuses what it should take: %s", c.name, last_message.c_str());
    test_tensors(c, random);
    test_numbers(c, random);
  }
  test_known_mistakes(random);
  test_linear_result(random);
  test_embedding_result(random);
  test_cross_kv_result(random);
}

}  // namespace t5g2::test
