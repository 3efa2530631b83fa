// Every table of kernels that this CPU offers, against plain scalar code: `kernels_test [--small] [--seed N] [name ...]`.
//
// Quantized linears must be equal bit for bit, on every CPU; what is float32 throughout may differ in the order of sums.
// --small: fewer and smaller shapes, for emulation. name: of the tests to run.

#include <cerrno>
#include <functional>
#include <string>

#include "runtime/kernels/attention.h"
#include "runtime/kernels/linear.h"
#include "testing.h"

namespace t5g2::test {
namespace {

// Relative to the largest result. Float32: sums of up to some hundred products in any order, exp to 1e-7.
constexpr double kFloat = 5e-6;
// Attention whose queries, keys, values and softmax weights are bfloat16 (8 bits): scores of a few units move by about 1 %.
constexpr double kReduced = 2e-2;
// Values that are float16 in a cache (11 bits), where rounding may go the other way for a value between two of them.
constexpr double kHalf = 1.5e-3;

bool small_sizes = false;

// ---- rows of activations -------------------------------------------------------------------------------------------

void check_quantized(const std::vector<float>& x, const char* what) {
  const int64_t columns = int64_t(x.size());
  for (int64_t group : {int64_t(0), int64_t(32), int64_t(64), int64_t(128)}) {
    const Packed shape{nullptr, 16, columns, 8, group};
    const int64_t stride = (shape.padded_columns() + 63) / 64 * 64, groups = shape.groups();
    Exact<float> input(columns);
    std::copy(x.begin(), x.end(), input.data());
    Exact<int8_t> q(stride);
    Exact<int32_t> sums(groups);
    float scale = -1;
    kernels().quantize_row(input.data(), columns, shape.group(), groups, stride, q.data(), sums.data(), &scale);
    const Row row = quantize(x.data(), columns);
    CHECK(scale == row.scale, "%s, %d columns: scale %g where %g is right", what, int(columns), scale, row.scale);
    for (int64_t k = 0; k < stride; ++k) {
      const int right = k < columns ? row.q[k] : 0;
      CHECK(q[k] == right, "%s, %d columns: column %d (%.9g, scale %.9g) is %d where %d is right", what, int(columns), int(k),
            k < columns ? x[k] : 0, scale, q[k], right);
    }
    for (int64_t g = 0; g < groups; ++g) {
      int right = 0;
      for (int64_t k = g * shape.group(); k < std::min((g + 1) * shape.group(), columns); ++k) right += row.q[k];
      CHECK(sums[g] == right, "%s, %d columns: group %d sums to %d where %d is right", what, int(columns), int(g), sums[g],
            right);
    }
  }
}

void test_quantize_row(Random& random) {
  for (int64_t columns : {1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 127, 128, 129, 640, 1153}) {
    check_quantized(random.values(columns), "random");
    check_quantized(std::vector<float>(columns, 0.0f), "zeros");
    check_quantized(random.values(columns, 1e38f), "huge");
    check_quantized(random.values(columns, 1e-30f), "tiny");
    check_quantized(random.values(columns, 1e-38f), "too tiny");
    check_quantized(random.values(columns, 1e-44f), "subnormal");
    std::vector<float> one(columns, 0.0f);
    one[random.integer(0, columns - 1)] = -3.5f;
    check_quantized(one, "one value");
  }
  // Values next to the middle between two integers, where one rounding more or less decides.
  for (int i = 0; i < (small_sizes ? 20 : 400); ++i) {
    std::vector<float> x(256);
    x[0] = random.uniform(0.5f, 2);
    for (size_t k = 1; k < x.size(); ++k) {
      const float middle = (float(random.integer(-127, 126)) + 0.5f) * (x[0] / 127.0f);
      const float up = std::nextafter(middle, 1e9f), down = std::nextafter(middle, -1e9f);
      x[k] = random.pick({middle, up, down});
      if (std::fabs(x[k]) > x[0]) x[k] = 0;
    }
    check_quantized(x, "ties");
  }
}

void test_to_half(Random& random) {
  std::vector<float> x;
  for (int h = 0; h < 65536; ++h) x.push_back(from_half(uint16_t(h)));
  for (int h = 0; h < 0x7bff; ++h) {  // the middles, and their neighbours
    const float middle = 0.5f * (from_half(uint16_t(h)) + from_half(uint16_t(h + 1)));
    for (float v : {middle, std::nextafter(middle, 0.0f), std::nextafter(middle, 1e9f)}) x.insert(x.end(), {v, -v});
  }
  for (float v : {65503.9f, 65504.0f, 65519.9f, 65520.0f, 65536.0f, 1e9f, 3e38f, 1e-8f, 2.9e-8f, 3.1e-8f, 1e-40f, 0.0f}) {
    x.insert(x.end(), {v, -v});
  }
  for (int i = 0; i < 100000; ++i) {
    const uint32_t word = uint32_t(random.integer(0, 0xffffffff));
    float v;
    std::memcpy(&v, &word, 4);
    x.push_back(v);
  }
  Exact<uint16_t> out(int64_t(x.size()));
  kernels().to_half(x.data(), int64_t(x.size()), out.data());
  for (size_t i = 0; i < x.size(); ++i) {
    const uint16_t right = to_half(x[i]);
    const bool same = std::isnan(x[i]) ? std::isnan(from_half(out[i])) : out[i] == right;
    CHECK(same, "%.9g is stored as %04x where %04x is right", x[i], out[i], right);
  }
  for (int64_t n = 1; n < 40; ++n) {  // no step beyond the end
    Exact<float> exact(n);
    std::copy_n(x.begin() + 5000, n, exact.data());
    Exact<uint16_t> few(n);
    kernels().to_half(exact.data(), n, few.data());
    for (int64_t i = 0; i < n; ++i) CHECK(few[i] == to_half(x[5000 + i]), "value %d of %d", int(i), int(n));
  }
}

// ---- products ------------------------------------------------------------------------------------------------------

void check_dot(const Matrix& w, int64_t rows, Random& random) {
  const Packed& shape = w.shape;
  const int64_t padded = shape.padded_columns(), stride = (padded + 63) / 64 * 64, groups = shape.groups();
  const int64_t padded_rows = (rows + kTileRows - 1) / kTileRows * kTileRows;
  Exact<uint8_t> weights(int64_t(w.bytes.size()), true);
  std::copy(w.bytes.begin(), w.bytes.end(), weights.data());
  std::vector<int> q(rows * shape.columns);
  for (int& v : q) v = random.integer(0, 3) ? int(random.integer(-127, 127)) : random.pick({-127, 127});
  Exact<int8_t> x(padded_rows * stride);  // rows beyond are whatever they are
  Exact<int32_t> sums(rows * groups), starts(rows * groups);
  for (int64_t r = 0; r < rows; ++r) {
    std::fill_n(&x[r * stride], stride, 0);
    std::fill_n(&sums[r * groups], groups, 0);
    for (int64_t k = 0; k < shape.columns; ++k) {
      x[r * stride + k] = int8_t(q[r * shape.columns + k]);
      sums[r * groups + k / shape.group()] += q[r * shape.columns + k];
    }
    for (int64_t g = r * groups; g < (r + 1) * groups; ++g) starts[g] = sums[g] * (shape.bits == 4 ? -8 : -128);
  }
  Exact<uint8_t> scratch(16 * stride);
  Exact<float> out(padded_rows * 16);
  DotArguments a{};
  a.weights = weights.data();
  a.scales = reinterpret_cast<const uint16_t*>(weights.data() + shape.weight_bytes());
  a.columns = padded;
  a.group = shape.group();
  a.groups = groups;
  a.stride = stride;
  a.scratch = scratch.data();
  std::vector<float> right(rows * 16);
  for (int64_t i = 0; i < rows * 16; ++i) right[i] = dot(w, i % 16, &q[i / 16 * shape.columns]);
  const Kernels& k = kernels();
  const auto unpack = shape.bits == 4 ? k.unpack_int4 : k.unpack_int8;
  for (const bool unpacked : {false, true}) {
    if (unpacked && !unpack) continue;
    std::fill_n(out.data(), padded_rows * 16, NAN);
    a.unpacked = unpacked;
    if (unpacked) unpack(a);
    for (int64_t first = 0, count; first < rows; first += count) {  // unpacked, rows come in tiles
      count = unpacked ? std::min(rows - first, random.integer(1, 3) * kTileRows) : rows;
      a.rows = count;
      a.x = x.data() + first * stride;
      a.starts = starts.data() + first * groups;
      a.out = out.data() + first * 16;
      (shape.bits == 4 ? k.dot_int4 : k.dot_int8)(a);
    }
    if (k.finish) k.finish();
    for (int64_t i = 0; i < rows * 16; ++i) {
      CHECK(out[i] == right[i],
            "int%d, %d columns in groups of %d, unpacked %d: row %d of %d, column %d is %.9g where %.9g is right",
            int(shape.bits), int(shape.columns), int(shape.group_size), unpacked, int(i / 16), int(rows), int(i % 16), out[i],
            right[i]);
    }
  }
}

void test_dot(Random& random) {
  for (int64_t bits : {4, 8}) {
    for (int64_t group : {0, 32, 64, 128}) {
      const auto check = [&](int64_t rows, bool extreme) {
        const int64_t columns = group ? group * random.integer(1, 4) : random.integer(1, small_sizes ? 150 : 700);
        check_dot(random_matrix(random, 16, columns, bits, group, extreme), rows, random);
      };
      for (int64_t rows = 1; rows <= 40; ++rows) {
        if (!small_sizes || rows <= 13 || rows % 8 < 2) check(rows, rows % 5 == 0);
      }
      if (!small_sizes) {
        check(100, false);
        check(300, true);
      }
    }
    for (int64_t columns = 1; columns <= 72; ++columns) {
      if (small_sizes && columns % 5) continue;
      check_dot(random_matrix(random, 16, columns, bits, 0), 1, random);
      check_dot(random_matrix(random, 16, columns, bits, 0), 17, random);
    }
    check_dot(random_matrix(random, 16, 2048, bits, 0, true), 3, random);
  }
}

void test_dot_float(Random& random) {
  for (int64_t rows : {1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 33}) {
    const int64_t columns = random.integer(1, 300);
    const Matrix w = random_matrix(random, 16, columns, 32, 0);
    Exact<uint8_t> weights(int64_t(w.bytes.size()), true);
    std::copy(w.bytes.begin(), w.bytes.end(), weights.data());
    Exact<float> x(rows * columns);
    for (int64_t i = 0; i < rows * columns; ++i) x[i] = random.value();
    Exact<float> out((rows + kTileRows - 1) / kTileRows * kTileRows * 16);
    DotArguments a{};
    a.weights = weights.data();
    a.columns = a.stride = columns;
    a.group = columns;
    a.x = x.data();
    a.rows = rows;
    a.out = out.data();
    kernels().dot_float(a);
    std::vector<double> right(rows * 16);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t n = 0; n < 16; ++n) {
        for (int64_t k = 0; k < columns; ++k) right[r * 16 + n] += double(x[r * columns + k]) * w.floats[n * columns + k];
      }
    }
    const double error = worst(out.data(), right.data(), rows * 16);
    CHECK(error < kFloat, "%d rows, %d columns: off by %.2g", int(rows), int(columns), error);
  }
}

void test_store(Random& random) {
  for (int i = 0; i < 300; ++i) {
    const int64_t rows = random.integer(1, 9), columns = random.integer(1, 70), stride = columns + random.integer(0, 9);
    const bool gated = random.coin(), has_scales = random.coin(), has_bias = !gated && random.coin();
    const bool gelu_too = !gated && random.coin();
    const int64_t block_rows = 16, blocks = (columns + 15) / 16 * (gated ? 2 : 1);
    Exact<float> dot(blocks * block_rows * 16), scales(rows), bias(columns), out((rows - 1) * stride + columns);
    for (int64_t j = 0; j < blocks * block_rows * 16; ++j) dot[j] = 20 * random.value();
    for (int64_t j = 0; j < rows; ++j) scales[j] = random.uniform(0, 0.3f);
    for (int64_t j = 0; j < columns; ++j) bias[j] = random.value();
    StoreArguments a{};
    a.dot = dot.data();
    a.block_rows = block_rows;
    a.gated = gated;
    a.row_scales = has_scales ? scales.data() : nullptr;
    a.bias = has_bias ? bias.data() : nullptr;
    a.gelu = gelu_too;
    a.rows = rows;
    a.columns = columns;
    a.out = out.data();
    a.stride = stride;
    std::fill_n(out.data(), (rows - 1) * stride + columns, 12345.0f);
    kernels().store(a);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t n = columns; n < stride && r + 1 < rows; ++n) {
        CHECK(out[r * stride + n] == 12345.0f, "column %d of %d was written", int(n), int(columns));
      }
      for (int64_t n = 0; n < columns; ++n) {
        const auto scaled = [&](int64_t block) {
          const float y = dot[(block * block_rows + r) * 16 + n % 16];
          return has_scales ? y * scales[r] : y;
        };
        float y = scaled(n / 16 * (gated ? 2 : 1));
        if (has_bias) y += bias[n];  // rounded twice, as in the reference
        const float result = out[r * stride + n];
        if (!gated && !gelu_too) {
          CHECK(result == y, "bias %d: %.9g where %.9g is right", has_bias, result, y);
          continue;
        }
        const double factor = gated ? scaled(n / 16 * 2 + 1) : 1.0f, right = gelu(y) * factor;
        // Below zero GELU is a large number times a tiny one: what is lost of it is small beside 1.
        CHECK(std::fabs(result - right) <= 2e-6 * std::fabs(right) + 1e-6 * std::fabs(factor),
              "gated %d, bias %d: gelu(%.9g) * %.9g gives %.9g where %.9g is right", gated, has_bias, y, factor, result, right);
      }
    }
  }
}

// ---- norms ---------------------------------------------------------------------------------------------------------

std::vector<double> rms_norm(const std::vector<double>& x, const float* weight, double eps) {
  double squares = 0;
  for (double v : x) squares += v * v;
  std::vector<double> out(x.size());
  for (size_t i = 0; i < x.size(); ++i) out[i] = x[i] / std::sqrt(squares / double(x.size()) + eps) * weight[i];
  return out;
}

std::vector<double> layer_norm(const std::vector<double>& x, const float* weight, const float* bias, double eps) {
  double mean = 0, squares = 0;
  for (double v : x) mean += v / double(x.size());
  for (double v : x) squares += (v - mean) * (v - mean) / double(x.size());
  std::vector<double> out(x.size());
  for (size_t i = 0; i < x.size(); ++i) out[i] = (x[i] - mean) / std::sqrt(squares + eps) * weight[i] + bias[i];
  return out;
}

void test_norms(Random& random) {
  const float eps = 1e-6f;
  for (int64_t n : {1, 2, 7, 15, 16, 17, 31, 32, 33, 100, 256, 640, 1152, 1155}) {
    for (float scale : {1e-3f, 1.0f, 1e4f}) {
      Exact<float> x(n), residual(n), weight(n), post(n), bias(n), sum(n), out(n);
      for (int64_t i = 0; i < n; ++i) {
        x[i] = scale * random.value();
        residual[i] = random.value();
        weight[i] = random.value();
        post[i] = random.value();
        bias[i] = random.value();
      }
      if (n == 1) residual[0] = std::copysign(residual[0], x[0] * post[0]);  // where they cancel, all is rounding
      const std::vector<double> values(x.data(), x.data() + n);
      std::vector<double> added(n), summed(n);
      const std::vector<double> normed = rms_norm(values, post.data(), eps);
      for (int64_t i = 0; i < n; ++i) {
        added[i] = double(residual[i]) + normed[i];
        summed[i] = double(residual[i]) + x[i];
      }
      const auto check = [&](float* result, const std::vector<double>& right, const char* what) {
        const double error = worst(result, right.data(), n);
        CHECK(error < kFloat, "%s of %d: off by %.2g", what, int(n), error);
      };
      const Kernels& k = kernels();
      k.rms_norm_row(x.data(), weight.data(), eps, n, out.data());
      check(out.data(), rms_norm(values, weight.data(), eps), "rms_norm");
      k.add_rms_norm_row(residual.data(), x.data(), post.data(), weight.data(), eps, n, sum.data(), out.data());
      check(sum.data(), added, "add_rms_norm's sum");
      check(out.data(), rms_norm(added, weight.data(), eps), "add_rms_norm");
      if (n > 1) {  // the difference to the mean of one value is nothing but rounding
        k.add_layer_norm_row(residual.data(), x.data(), weight.data(), bias.data(), eps, n, sum.data(), out.data());
        check(sum.data(), summed, "add_layer_norm's sum");
        double mean = 0, squares = 0;
        for (double v : summed) mean += v / double(n);
        for (double v : summed) squares += (v - mean) * (v - mean) / double(n);
        // Values that lie close together lose, as their mean is subtracted, what they have in common.
        const double common = std::max(1.0, std::fabs(mean) / std::sqrt(squares + eps));
        const double error = worst(out.data(), layer_norm(summed, weight.data(), bias.data(), eps).data(), n);
        CHECK(error < kFloat * common, "add_layer_norm of %d: off by %.2g", int(n), error);
      }
      k.rms_norm_row(x.data(), weight.data(), eps, n, x.data());  // cross_kv norms in place
      check(x.data(), rms_norm(values, weight.data(), eps), "rms_norm in place");
    }
  }
}

// One head: out = rotate(rms_norm(x) * norm) * scale. norm and cos may be null.
std::vector<double> rotated(const float* x, const float* norm, double eps, const float* cos, const float* sin, int64_t d,
                            double scale) {
  std::vector<double> v(x, x + d);
  if (norm) v = rms_norm(v, norm, eps);
  if (cos) {
    const std::vector<double> old = v;
    for (int64_t i = 0; i < d / 2; ++i) {
      v[i] = old[i] * cos[i] - old[d / 2 + i] * sin[i];
      v[d / 2 + i] = old[d / 2 + i] * cos[i] + old[i] * sin[i];
    }
  }
  for (double& y : v) y *= scale;
  return v;
}

void test_norm_rotate(Random& random) {
  for (int64_t d : {2, 4, 12, 30, 32, 34, 64, 72, 256}) {
    for (int form = 0; form < 8; ++form) {
      const bool normed = form & 1, rotates = form & 2;
      const float scale = form & 4 ? 0.0625f : 1.0f;
      Exact<float> x(d), norm(d), cos(d / 2), sin(d / 2), out(d);
      for (int64_t i = 0; i < d; ++i) x[i] = random.value(), norm[i] = random.value();
      for (int64_t i = 0; i < d / 2; ++i) {
        const float angle = random.uniform(-4, 4);
        cos[i] = std::cos(angle), sin[i] = std::sin(angle);
      }
      kernels().norm_rotate(x.data(), normed ? norm.data() : nullptr, 1e-6f, rotates ? cos.data() : nullptr,
                            rotates ? sin.data() : nullptr, d, scale, out.data());
      const auto right = rotated(x.data(), normed ? norm.data() : nullptr, 1e-6, rotates ? cos.data() : nullptr, sin.data(), d,
                                 scale);
      const double error = worst(out.data(), right.data(), d);
      CHECK(error < kFloat, "d %d, norm %d, rotary %d: off by %.2g", int(d), normed, rotates, error);
    }
  }
}

// ---- attention -----------------------------------------------------------------------------------------------------

// softmax(q . k) v over some keys; adds to `out` [d].
void attend(const std::vector<double>& q, const std::vector<const double*>& keys, const std::vector<const double*>& values,
            double* out) {
  const size_t d = q.size();
  std::vector<double> scores(keys.size());
  double largest = -INFINITY, sum = 0;
  for (size_t j = 0; j < keys.size(); ++j) {
    for (size_t x = 0; x < d; ++x) scores[j] += q[x] * keys[j][x];
    largest = std::max(largest, scores[j]);
  }
  for (double& s : scores) sum += s = std::exp(s - largest);
  for (size_t j = 0; j < keys.size(); ++j) {
    for (size_t x = 0; x < d; ++x) out[x] += scores[j] / sum * values[j][x];
  }
}

struct Head {
  std::vector<float> q_norm, k_norm, cos, sin;
};

Head random_head(Random& random, int64_t rows, int64_t d) {
  const std::vector<float> angles(rows * (d / 2));
  Head h{random.values(d, 0.4f), random.values(d, 0.4f), angles, angles};
  for (float& w : h.q_norm) w += 1;
  for (float& w : h.k_norm) w += 1;
  for (size_t i = 0; i < h.cos.size(); ++i) {
    const float angle = random.uniform(-4, 4);
    h.cos[i] = std::cos(angle), h.sin[i] = std::sin(angle);
  }
  return h;
}

void check_attention(Random& random, int64_t length, int64_t d, int64_t heads, int64_t kv_heads, int64_t window) {
  const bool normed = random.coin(), rotates = random.coin();
  const Head head = random_head(random, length, d);
  const int64_t wide = (heads + 2 * kv_heads) * d;
  const std::vector<float> qkv = random.values(length * wide);
  const float eps = 1e-6f, scale = 1 / std::sqrt(float(d));
  Exact<float> out(length * heads * d);
  AttentionArguments a{};
  a.qkv = qkv.data();
  a.cos = rotates ? head.cos.data() : nullptr;
  a.sin = rotates ? head.sin.data() : nullptr;
  a.q_norm = normed ? head.q_norm.data() : nullptr;
  a.k_norm = normed ? head.k_norm.data() : nullptr;
  a.eps = eps;
  a.scale = scale;
  a.length = length;
  a.heads = heads;
  a.kv_heads = kv_heads;
  a.d = d;
  a.window = window;
  a.out = out.data();

  const auto part = [&](int64_t i, int64_t h, const float* norm, bool rotate, double by) {
    const float* cos = rotate && rotates ? head.cos.data() + i * (d / 2) : nullptr;
    return rotated(&qkv[i * wide + h * d], norm, eps, cos, head.sin.data() + i * (d / 2), d, by);
  };
  std::vector<double> right(length * heads * d);
  for (int64_t kv = 0; kv < kv_heads; ++kv) {
    std::vector<std::vector<double>> keys, values;
    for (int64_t i = 0; i < length; ++i) {
      keys.push_back(part(i, heads + kv, a.k_norm, true, 1));
      values.push_back(part(i, heads + kv_heads + kv, nullptr, false, 1));
    }
    for (int64_t i = 0; i < length; ++i) {
      std::vector<const double*> seen_keys, seen_values;
      for (int64_t j = 0; j < length; ++j) {
        if (window && (i - j < -(window / 2) || i - j >= (window + 1) / 2)) continue;
        seen_keys.push_back(keys[j].data());
        seen_values.push_back(values[j].data());
      }
      for (int64_t h = kv * (heads / kv_heads); h < (kv + 1) * (heads / kv_heads); ++h) {
        attend(part(i, h, a.q_norm, true, scale), seen_keys, seen_values, &right[(i * heads + h) * d]);
      }
    }
  }
  for (bool exact : {true, false}) {
    set_threads(random.integer(1, 3));
    attention(a, exact);
    const double error = worst(out.data(), right.data(), int64_t(right.size()));
    CHECK(error < (exact ? kFloat : kReduced), "length %d, d %d, %d heads, %d kv heads, window %d, exact %d: off by %.2g",
          int(length), int(d), int(heads), int(kv_heads), int(window), exact, error);
  }
}

void test_attention(Random& random) {
  for (int64_t d : {12, 32, 72, 256}) {
    for (int64_t window : {0, 16, 17}) {
      for (int i = 0; i < (small_sizes ? 2 : 8); ++i) {
        const int64_t kv_heads = random.integer(1, 2);
        const int64_t length = i == 0 ? 1 : i == 1 ? random.integer(30, 50) : random.integer(2, 100);
        check_attention(random, length, d, kv_heads * random.integer(1, small_sizes ? 1 : 4), kv_heads, window);
      }
    }
  }
  if (small_sizes) return;
  check_attention(random, 31, 32, 1, 1, 1);      // every query sees itself only
  check_attention(random, 300, 32, 2, 1, 0);     // more keys than are taken at once
  check_attention(random, 300, 32, 2, 1, 48);
  check_attention(random, 515, 12, 1, 1, 512);
}

// One layer of a decoder: steps of M tokens, some taken back as after a rejected draft, against the whole history.
void check_merged(Random& random, int64_t d, int64_t kv_heads, int64_t group, int64_t window, bool half, int64_t source) {
  const int64_t heads = kv_heads * group, wide = (heads + 2 * kv_heads) * d, most = 16;
  const int64_t steps = small_sizes ? 5 : 12;
  const int64_t slots = window ? window - 1 + most : steps * most;
  const int64_t size = half ? 2 : 4;
  Exact<uint8_t> keys(kv_heads * slots * d * size), values(kv_heads * slots * d * size);
  Exact<uint8_t> cross_keys(kv_heads * source * d * size), cross_values(kv_heads * source * d * size);
  const auto stored = [&](double v) { return half ? double(from_half(to_half(float(v)))) : v; };
  const auto fill = [&](Exact<uint8_t>& to) {
    std::vector<double> exact(kv_heads * source * d);
    for (size_t i = 0; i < exact.size(); ++i) {
      const float v = random.value();
      const uint16_t h = to_half(v);
      exact[i] = stored(v);
      std::memcpy(&to[i * size], half ? static_cast<const void*>(&h) : &v, size);
    }
    return exact;
  };
  const std::vector<double> other_keys = fill(cross_keys), other_values = fill(cross_values);
  std::vector<std::vector<double>> past_keys, past_values;  // per position, [kv heads][d]

  int64_t position = 0;
  for (int64_t step = 0; step < steps; ++step) {
    const int64_t rows = step % 3 == 0 ? 1 : random.integer(1, most);
    const Head head = random_head(random, rows, d);
    const std::vector<float> qkv = random.values(rows * wide);
    Exact<float> out(rows * heads * d);
    MergedArguments a{};
    a.qkv = qkv.data();
    a.cos = head.cos.data();
    a.sin = head.sin.data();
    a.q_norm = head.q_norm.data();
    a.k_norm = head.k_norm.data();
    a.eps = 1e-6f;
    a.scale = 1 / std::sqrt(float(d));
    a.rows = rows;
    a.position = position;
    a.heads = heads;
    a.kv_heads = kv_heads;
    a.d = d;
    a.window = window;
    a.slots = slots;
    a.source = source;
    a.half = half;
    a.keys = keys.data();
    a.values = values.data();
    a.cross_keys = cross_keys.data();
    a.cross_values = cross_values.data();
    a.out = out.data();
    set_threads(random.pick({1, 1, 2, 3}));
    merged_attention(a);

    past_keys.resize(position);
    past_values.resize(position);
    std::vector<double> right(rows * heads * d);
    const auto turned = [&](int64_t r, int64_t h, const float* norm, double by) {
      return rotated(&qkv[r * wide + h * d], norm, a.eps, a.cos + r * (d / 2), a.sin + r * (d / 2), d, by);
    };
    for (int64_t r = 0; r < rows; ++r) {
      past_keys.emplace_back();
      past_values.emplace_back();
      for (int64_t kv = 0; kv < kv_heads; ++kv) {
        for (double v : turned(r, heads + kv, a.k_norm, 1)) past_keys.back().push_back(stored(v));
        const float* v = &qkv[r * wide + (heads + kv_heads + kv) * d];
        for (int64_t x = 0; x < d; ++x) past_values.back().push_back(stored(v[x]));
      }
    }
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t h = 0; h < heads; ++h) {
        const int64_t kv = h / group, oldest = window ? std::max<int64_t>(0, position + r - window + 1) : 0;
        std::vector<const double*> seen_keys, seen_values;
        for (int64_t p = oldest; p <= position + r; ++p) {
          seen_keys.push_back(&past_keys[p][kv * d]);
          seen_values.push_back(&past_values[p][kv * d]);
        }
        for (int64_t s = 0; s < source; ++s) {
          seen_keys.push_back(&other_keys[(kv * source + s) * d]);
          seen_values.push_back(&other_values[(kv * source + s) * d]);
        }
        attend(turned(r, h, a.q_norm, a.scale), seen_keys, seen_values, &right[(r * heads + h) * d]);
      }
    }
    const double error = worst(out.data(), right.data(), int64_t(right.size()));
    CHECK(error < (half ? kHalf : kFloat),
          "position %d, %d rows, d %d, %d heads, %d kv heads, window %d, %d slots, source %d, half %d: off by %.2g",
          int(position), int(rows), int(d), int(heads), int(kv_heads), int(window), int(slots), int(source), half, error);
    position += random.coin() ? rows : random.integer(1, rows);
  }
}

void test_merged_attention(Random& random) {
  for (int i = 0; i < (small_sizes ? 6 : 60); ++i) {
    const int64_t d = random.pick({16, 32, 80, small_sizes ? 64 : 256});
    const int64_t window = random.pick({0, 1, 2, 5, 16, 33});
    const int64_t source = random.pick({1, 3, 64, 65, small_sizes ? 70 : 400});
    check_merged(random, d, random.integer(1, 2), random.pick({1, 2, 3, 4, 5}), window, random.coin(), source);
  }
}

// A value alone is itself, so that every float16 comes back.
void test_half_caches(Random&) {
  const float zeros[16] = {};
  for (int h = 0; h < 65536; h += 16) {
    uint16_t values[16], keys[16] = {};
    float max = -INFINITY, sum = 0, mixed[16] = {};
    for (int i = 0; i < 16; ++i) values[i] = uint16_t(h + i);
    kernels().stretch({zeros, 1, keys, values, true, 1, 16, &max, &sum, mixed});
    for (int i = 0; i < 16; ++i) {
      const float right = from_half(values[i]);
      CHECK(std::isnan(right) ? std::isnan(mixed[i]) : mixed[i] == right, "%04x is read as %.9g", values[i], mixed[i]);
    }
  }
}

// ---- linear --------------------------------------------------------------------------------------------------------

void check_linear(Random& random, int64_t rows, int64_t n, int64_t columns, int64_t bits, int64_t group) {
  const bool gated = random.coin(), has_bias = !gated && random.coin(), gelu_too = !gated && random.integer(0, 3) == 0;
  const int64_t units = (n + 15) / 16, first_block = gated ? 0 : random.integer(0, 2);
  Matrix w = random_matrix(random, gated ? 32 * units : 16 * first_block + n, columns, bits, group);
  Exact<uint8_t> bytes(int64_t(w.bytes.size()), true);
  std::copy(w.bytes.begin(), w.bytes.end(), bytes.data());
  w.shape.data = bytes.data();
  std::vector<float> values = random.values(rows * columns);
  Exact<float> x(rows * columns), bias(n);
  std::copy(values.begin(), values.end(), x.data());
  for (int64_t i = 0; i < n; ++i) bias[i] = 10 * random.value();
  const int64_t stride = n + random.integer(0, 5);
  Exact<float> out((rows - 1) * stride + n);
  LinearArguments a;
  a.weights = w.shape;
  a.first_block = first_block;
  a.rows = n;
  a.bias = has_bias ? bias.data() : nullptr;
  a.gelu = gelu_too;
  a.gated = gated;
  a.out = out.data();
  a.stride = stride;
  set_threads(random.integer(1, 3));
  linear(x.data(), rows, a);
  // Some CPUs multiply many rows in bfloat16, which rounds both factors by up to 2^-8.
  const bool rounded = bits != 32 && kernels().dot_bf16 && rows >= kTileRows && w.shape.groups() > 1;
  const bool exact = bits != 32 && !rounded && !gated && !gelu_too;
  struct Product {
    double value;
    double error;  // at most
  };
  constexpr double kSlope = 1.13;  // of GELU, at most
  double largest = 1;
  std::vector<Product> right(rows * n);
  for (int64_t r = 0; r < rows; ++r) {
    const Row row = quantize(&values[r * columns], columns);
    const auto product = [&](int64_t i) {
      if (bits != 32 && !rounded) return Product{dot(w, i, row.q.data()) * row.scale, 0};
      double sum = 0, magnitudes = 0;
      for (int64_t k = 0; k < columns; ++k) {
        const double weight = bits == 32 ? w.floats[i * columns + k]
                                         : double(w.value(i, k)) * w.scales[i * w.shape.groups() + k / w.shape.group()];
        sum += values[r * columns + k] * weight;
        magnitudes += std::fabs(values[r * columns + k] * weight);
      }
      return Product{sum, rounded ? magnitudes * std::ldexp(1.01, -7) : 0};
    };
    for (int64_t i = 0; i < n; ++i) {
      Product y;
      if (gated) {
        const Product gate = product(i / 16 * 32 + i % 16), up = product(i / 16 * 32 + 16 + i % 16);
        const double gated_by = gelu(gate.value);
        y = {gated_by * up.value, kSlope * gate.error * (std::fabs(up.value) + up.error) + std::fabs(gated_by) * up.error};
      } else {
        y = product(16 * first_block + i);
        if (has_bias) y.value = exact ? float(y.value) + bias[i] : y.value + bias[i];
        if (gelu_too) y = {gelu(y.value), kSlope * y.error};
      }
      right[r * n + i] = y;
      largest = std::max(largest, std::fabs(y.value));
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < n; ++i) {
      const double result = out[r * stride + i];
      const auto [value, error] = right[r * n + i];
      CHECK(exact ? result == value : std::fabs(result - value) <= error + kFloat * largest,
            "%d bits in groups of %d, [%d, %d] x [%d, %d], first block %d, bias %d, gelu %d, gated %d: row %d, column %d is "
            "%.9g where %.9g is right",
            int(bits), int(group), int(rows), int(columns), int(n), int(columns), int(first_block), has_bias, gelu_too, gated,
            int(r), int(i), result, value);
    }
  }
}

void test_linear(Random& random) {
  for (int64_t bits : {4, 8, 32}) {
    for (int64_t group : {0, 32, 64, 128}) {
      if (bits == 32 && group) continue;
      for (int i = 0; i < (small_sizes ? 3 : 20); ++i) {
        const int64_t rows = i % 3 == 0 ? 1 : random.integer(2, small_sizes ? 20 : 70);
        check_linear(random, rows, random.integer(1, 150), random.integer(1, small_sizes ? 150 : 400), bits, group);
      }
      if (!small_sizes) check_linear(random, 300, 40, 200, bits, group);  // more rows than are taken at once
    }
  }
  check_linear(random, 1, small_sizes ? 500 : 5000, 128, 4, 32);  // blocks in several pieces per thread
  for (int64_t bits : {4, 8}) check_linear(random, small_sizes ? 17 : 70, 40, 900, bits, 32);  // columns, where tiles take pieces
  // Two slices of rows, and one that takes in what would be less than a tile.
  for (int64_t rows : {273, 270}) {
    if (!small_sizes) check_linear(random, rows, 20, 5000, 8, 32);
  }
}

struct Test {
  const char* name;
  void (*run)(Random&);
};

constexpr Test kKernelTests[] = {
    {"quantize_row", test_quantize_row}, {"to_half", test_to_half},     {"dot", test_dot},
    {"dot_float", test_dot_float},       {"store", test_store},         {"norms", test_norms},
    {"norm_rotate", test_norm_rotate},   {"attention", test_attention}, {"merged_attention", test_merged_attention},
    {"half_caches", test_half_caches},   {"linear", test_linear},
};

int run(int argc, char** argv) {
  uint64_t seed = std::random_device{}();
  std::vector<std::string> wanted;
  for (int i = 1; i < argc; ++i) {
    if (!std::strcmp(argv[i], "--small")) {
      small_sizes = true;
    } else if (!std::strcmp(argv[i], "--seed") && i + 1 < argc) {
      seed = std::strtoull(argv[++i], nullptr, 10);
    } else {
      wanted.push_back(argv[i]);
    }
  }
  int failures = 0, count = 0;
  const auto attempt = [&](const Test& test) {
    if (!wanted.empty() && std::find(wanted.begin(), wanted.end(), test.name) == wanted.end()) return;
    ++count;
    try {
      Random random(seed);
      test.run(random);
    } catch (const Failed&) {
      ++failures;
      std::fprintf(stderr, "  in %s; again with: kernels_test%s --seed %llu %s\n", test.name, small_sizes ? " --small" : "",
                   static_cast<unsigned long long>(seed), test.name);
    }
  };
  std::string names;
  for (const char* const* name = available_kernels(); *name; ++name) {
    names += std::string(names.empty() ? "" : " ") + *name;
    CHECK(use_kernels(*name) && !std::strcmp(kernels().name, *name), "%s kernels are offered but not taken", *name);
    for (const Test& test : kKernelTests) attempt(test);
  }
  attempt({"operators", test_operators});
  std::printf("%d tests, %d failures; kernels: %s\n", count, failures, names.c_str());
  return failures ? 1 : 0;
}

}  // namespace
}  // namespace t5g2::test

int main(int argc, char** argv) { return t5g2::test::run(argc, argv); }
