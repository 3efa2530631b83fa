// Choosing tokens in the engine: passes over a vocabulary, logits processors, sampler, log-probabilities, beam search.
// `generation_test [name ...]` runs the tests of those names, or all.
//
// Needs no model and no kernels. tests/test_engine_generation.py holds the same code against the Python sampler, transformers
// and torch.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <numeric>
#include <set>
#include <string>

#include "check.h"
#include "runtime/engine/beam_search.h"
#include "runtime/engine/error.h"
#include "runtime/engine/logits_processors.h"
#include "runtime/engine/logprobs.h"
#include "runtime/engine/sampler.h"

namespace t5g2::test {
namespace {

const char* kernels_in_use() { return nullptr; }

// The kind and the beginning of the message.
template <class Body>
void check_throws(int line, Error::Kind kind, const std::string& beginning, Body body) {
  std::string message = "nothing";
  try {
    body();
  } catch (const Error& error) {
    message = error.what();
    if (error.kind() == kind && message.rfind(beginning, 0) == 0 && message.find('\n') == std::string::npos) return;
  }
  fail(__FILE__, line, "throws", kernels_in_use(), "an error like '%s' was expected; thrown: %s", beginning.c_str(),
       message.c_str());
}
#define CHECK_INPUT_ERROR(beginning, ...) check_throws(__LINE__, Error::Kind::kInput, beginning, [&] { __VA_ARGS__; })
#define CHECK_MISUSE(beginning, ...) check_throws(__LINE__, Error::Kind::kUsage, beginning, [&] { __VA_ARGS__; })

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr const char* kBroken = "the model's logits hold NaN or infinity";
constexpr const char* kNothingLeft = "every token is suppressed";

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  int integer(int low, int high) { return low + int(engine_() % uint64_t(high - low + 1)); }
  float uniform(float low, float high) { return low + (high - low) * float(engine_() >> 40) / float(1 << 24); }
  bool coin() { return engine_() & 1; }

  // ties: from a few values only.
  std::vector<float> logits(size_t count, float scale = 3, bool ties = false) {
    std::vector<float> out(count);
    for (float& x : out) x = scale * (ties ? float(integer(-2, 2)) : uniform(-1, 1) + uniform(-1, 1) + uniform(-1, 1));
    return out;
  }

 private:
  std::mt19937_64 engine_;
};

int32_t sample(Sampler& sampler, std::vector<float> logits, const std::vector<int32_t>& target = {},
               const std::vector<int32_t>& forbidden = {}) {
  return sampler.sample(logits, target, forbidden);
}

int32_t greedy(const std::vector<float>& logits) {
  return int32_t(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// Probabilities by the definition, in long double.
std::vector<long double> softmax(const std::vector<float>& logits, long double temperature = 1) {
  const long double largest = *std::max_element(logits.begin(), logits.end());
  std::vector<long double> p(logits.size());
  for (size_t i = 0; i < p.size(); ++i) p[i] = std::exp((logits[i] - largest) / temperature);
  const long double sum = std::accumulate(p.begin(), p.end(), 0.0L);
  for (long double& x : p) x /= sum;
  return p;
}

// Probabilities after the options, by their definition.
std::vector<long double> distribution(const std::vector<float>& logits, const SamplingOptions& options) {
  std::vector<long double> p = softmax(logits, options.temperature);
  std::vector<size_t> order(p.size());
  std::iota(order.begin(), order.end(), size_t(0));
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  if (options.top_k > 0 && size_t(options.top_k) < order.size()) order.resize(size_t(options.top_k));
  long double share = 0;
  for (size_t i : order) share += p[i];
  if (options.top_p < 1) {
    long double reached = 0;
    size_t kept = 0;
    while (kept < order.size() && reached < options.top_p * share) reached += p[order[kept++]];
    order.resize(kept);
  }
  std::vector<long double> result(p.size(), 0);
  long double total = 0;
  for (size_t i : order) total += result[i] = p[i] >= options.min_p * p[order[0]] ? p[i] : 0;
  for (long double& x : result) x /= total;
  return result;
}

// ---- passes over a vocabulary ----------------------------------------------------------------------------------------

void test_exp() {
  double worst = 0;
  for (double x = 0; x >= -87; x -= 1.7e-4) {
    worst = std::max(worst, std::fabs(double(exp_nonpositive(float(x))) / std::exp(double(float(x))) - 1));
  }
  CHECK(worst < 2e-7, "relative error %g", worst);
  CHECK(exp_nonpositive(0) == 1 && exp_nonpositive(-0.0f) == 1, "exp(0) is %.9g", double(exp_nonpositive(0)));
  for (float x : {-87.01f, -88.0f, -200.0f, -1e9f, -3e38f, -kInfinity}) {
    CHECK(exp_nonpositive(x) == 0, "exp(%g) is %g", double(x), double(exp_nonpositive(x)));
  }
}

void test_best() {
  Random random(1);
  BlockMaxima maxima;
  std::vector<Candidate> found;
  for (int round = 0; round < 2000; ++round) {
    std::vector<float> scores = random.logits(size_t(random.integer(1, round % 10 ? 300 : 20000)), 3, random.coin());
    for (int i = random.integer(0, 3) * int(scores.size()) / 4; i > 0; --i) {
      scores[size_t(random.integer(0, int(scores.size()) - 1))] = -kInfinity;
    }
    std::vector<Candidate> right;
    for (size_t i = 0; i < scores.size(); ++i) {
      if (scores[i] > -kInfinity) right.push_back({scores[i], int32_t(i)});
    }
    std::sort(right.begin(), right.end(), likelier);
    maxima.update(scores);
    CHECK(maxima.largest() == *std::max_element(scores.begin(), scores.end()), "largest of %zu", scores.size());
    CHECK(maxima.first_largest() == greedy(scores), "first largest of %zu", scores.size());

    const size_t n = size_t(random.integer(1, int(scores.size()) + 2));
    maxima.best(n, found);
    std::sort(found.begin(), found.end(), likelier);
    CHECK(found.size() == std::min(n, right.size()), "%zu of %zu, best %zu", found.size(), scores.size(), n);
    for (size_t i = 0; i < found.size(); ++i) CHECK(found[i].id == right[i].id, "best %zu of %zu: at %zu", n, scores.size(), i);

    const double floor = scores[size_t(random.integer(0, int(scores.size()) - 1))];
    maxima.at_least(floor, found);
    const auto expected = std::count_if(right.begin(), right.end(), [&](const Candidate& c) { return c.score >= floor; });
    CHECK(found.size() == size_t(expected), "%zu at least %g, not %zd", found.size(), floor, expected);
    for (size_t i = 0; i < found.size(); ++i) {
      CHECK(found[i].score == scores[size_t(found[i].id)] && (i == 0 || found[i - 1].id < found[i].id), "at %zu", i);
    }
  }
}

void test_broken_numbers() {
  Random random(2);
  for (size_t count : {1, 2, 63, 64, 65, 127, 128, 200}) {
    for (size_t at = 0; at < count; ++at) {
      for (float bad : {kNaN, -kNaN, kInfinity}) {
        std::vector<float> logits = random.logits(count);
        check_numbers(logits);
        logits[at] = bad;
        CHECK_INPUT_ERROR(kBroken, check_numbers(logits));
        CHECK_INPUT_ERROR(kBroken, logprob_of(logits, 0));
        for (float temperature : {0.0f, 1.0f}) {
          Sampler sampler({.temperature = temperature}, 0, {}, int32_t(count));
          CHECK_INPUT_ERROR(kBroken, sample(sampler, logits));
        }
        // An error even where it would not be chosen, or would be changed to a number.
        Sampler masked({.repetition_penalty = 2}, 0, {int32_t(at)}, int32_t(count));
        CHECK_INPUT_ERROR(kBroken, sample(masked, logits, {int32_t(at)}, {int32_t(at)}));
        BeamSearch search({.beams = 2}, {}, {int32_t(at)}, {0}, int32_t(count));
        CHECK_INPUT_ERROR(kBroken, search.feed(0, logits));
      }
    }
  }
}

// ---- processors --------------------------------------------------------------------------------------------------------

void test_repetition_penalty() {
  std::vector<float> scores = {2, -2, 0, 1, -kInfinity, 3e38f};
  penalize_repetition(scores, std::vector<int32_t>{0, 1, 0, 2, 4, 0}, 4);
  CHECK((scores == std::vector<float>{0.5f, -8, 0, 1, -kInfinity, 3e38f}), "penalized once an id: %g %g", double(scores[0]),
        double(scores[1]));
  penalize_repetition(scores, std::vector<int32_t>{5}, 1e-3f);
  CHECK(scores[5] == std::numeric_limits<float>::max(), "stays a number: %g", double(scores[5]));
}

void test_ngrams() {
  const auto forbidden = [](std::vector<int32_t> target, size_t n) {
    std::vector<float> scores(10, 0);
    forbid_repeated_ngrams(scores, target, n);
    std::set<int> ids;
    for (int i = 0; i < 10; ++i) {
      if (scores[size_t(i)] == -kInfinity) ids.insert(i);
    }
    return ids;
  };
  CHECK((forbidden({}, 1) == std::set<int>{}), "nothing in an empty target");
  CHECK((forbidden({2, 5, 2}, 1) == std::set<int>{2, 5}), "single ids");
  CHECK((forbidden({2, 5, 2}, 2) == std::set<int>{5}), "pairs");
  CHECK((forbidden({2, 5, 2, 6, 2}, 2) == std::set<int>{5, 6}), "pairs that occurred twice");
  CHECK((forbidden({2, 2}, 2) == std::set<int>{2}), "a pair that overlaps itself");
  CHECK((forbidden({1, 2, 3, 1, 2}, 3) == std::set<int>{3}), "triples");
  CHECK((forbidden({1, 2, 3, 1, 2}, 4) == std::set<int>{}), "no run of four");
  CHECK((forbidden({1, 2}, 3) == std::set<int>{}), "a target shorter than a run");
  CHECK((forbidden({1, 2, 3}, size_t(1) << 30) == std::set<int>{}), "a run longer than any target");
}

// ---- sampler -----------------------------------------------------------------------------------------------------------

void test_greedy() {
  Sampler sampler({}, 0, {}, 4);
  CHECK(sample(sampler, {0, 2, 1, 2}) == 1, "the first of equal maxima");
  CHECK(sample(sampler, {-5, -4, -kInfinity, -4.5f}) == 1, "negative logits");
  Random random(3);
  for (int round = 0; round < 300; ++round) {
    const std::vector<float> logits = random.logits(size_t(random.integer(1, 500)), 3, random.coin());
    const int32_t vocab = int32_t(logits.size()), right = greedy(logits);
    for (const SamplingOptions& options :
         {SamplingOptions{}, SamplingOptions{.top_p = 0.1f, .min_p = 0.5f, .top_k = 3},
          SamplingOptions{.temperature = 2, .top_k = 1}, SamplingOptions{.temperature = 1e-9f, .top_k = 1}}) {
      Sampler one(options, uint64_t(round), {}, vocab);
      CHECK(sample(one, logits) == right, "of %d", vocab);
    }
  }
}

void test_extreme_temperature() {
  Random random(4);
  for (int round = 0; round < 200; ++round) {
    const std::vector<float> logits = random.logits(100);
    for (float temperature : {1e-45f, 1e-30f, 1e-9f}) {
      for (const SamplingOptions& options : {SamplingOptions{.temperature = temperature},
                                             SamplingOptions{.temperature = temperature, .top_p = 0.9f},
                                             SamplingOptions{.temperature = temperature, .min_p = 0.1f, .top_k = 20}}) {
        Sampler sampler(options, uint64_t(round), {}, 100);
        CHECK(sample(sampler, logits) == greedy(logits), "temperature %g", double(temperature));
      }
    }
  }
  Sampler hot({.temperature = 3e38f}, 1, {}, 100);
  std::set<int32_t> seen;
  for (int i = 0; i < 2000; ++i) seen.insert(sample(hot, random.logits(100)));
  CHECK(seen.size() == 100, "%zu ids of 100 at an endless temperature", seen.size());
  Sampler wide({.temperature = 1}, 1, {}, 3);
  for (int i = 0; i < 100; ++i) CHECK(sample(wide, {-3e38f, 3e38f, -3e38f}) == 1, "the widest spread of logits");
}

void test_seed() {
  const auto run = [](uint64_t seed) {
    Random random(5);
    Sampler sampler({.temperature = 1, .top_p = 0.95f}, seed, {}, 300);
    std::vector<int32_t> ids;
    for (int i = 0; i < 50; ++i) ids.push_back(sample(sampler, random.logits(300)));
    return ids;
  };
  CHECK(run(7) == run(7), "the same seed gives the same ids");
  CHECK(run(7) != run(8), "another seed gives others");
  CHECK(random_seed() != random_seed(), "a new seed each time");
}

// Over equal logits the id tells the number that was drawn.
void test_one_draw_a_call() {
  constexpr int kVocab = 1 << 12;
  const std::vector<float> flat(kVocab, 1);
  Random random(6);
  for (const SamplingOptions& options :
       {SamplingOptions{.temperature = 1}, SamplingOptions{.temperature = 1, .top_k = 1},
        SamplingOptions{.temperature = 1, .top_k = 9}, SamplingOptions{.temperature = 1, .top_p = 0.5f},
        SamplingOptions{.temperature = 1, .min_p = 1}}) {
    Sampler sampler(options, 42, {}, kVocab);
    std::mt19937_64 engine(42);
    for (int i = 0; i < 50; ++i) {
      const double u = double(engine() >> 11) / 9007199254740992.0;
      const int kept = options.top_k > 0 ? options.top_k : int(kVocab * options.top_p);
      if (i % 3) {
        sample(sampler, random.logits(kVocab));
      } else {
        CHECK(sample(sampler, flat) == int32_t(u * kept), "call %d", i);
      }
    }
  }
}

// By Pearson's statistic; rare ids are counted together.
void test_distribution() {
  Random random(7);
  const std::vector<SamplingOptions> cases = {{.temperature = 1},
                                              {.temperature = 0.5f},
                                              {.temperature = 2},
                                              {.temperature = 0.7f, .top_k = 12},
                                              {.temperature = 1, .top_p = 0.8f},
                                              {.temperature = 1.5f, .top_p = 0.6f, .top_k = 10},
                                              {.temperature = 1, .min_p = 0.1f},
                                              {.temperature = 1.5f, .top_p = 0.9f, .min_p = 0.05f, .top_k = 30}};
  for (size_t c = 0; c < cases.size(); ++c) {
    const std::vector<float> logits = random.logits(150, 2);
    const std::vector<long double> p = distribution(logits, cases[c]);
    Sampler sampler(cases[c], c, {}, 150);
    constexpr int kDraws = 40000;
    std::vector<int> seen(150);
    for (int i = 0; i < kDraws; ++i) ++seen[size_t(sample(sampler, logits))];
    long double statistic = 0, rare = 0;
    int rare_seen = 0, freedom = -1;
    for (size_t i = 0; i < p.size(); ++i) {
      CHECK(p[i] > 0 || !seen[i], "case %zu: id %zu is not kept, but was chosen", c, i);
      const long double expected = p[i] * kDraws;
      if (expected < 10) {
        rare += expected;
        rare_seen += seen[i];
      } else {
        statistic += (seen[i] - expected) * (seen[i] - expected) / expected;
        ++freedom;
      }
    }
    if (rare > 1) {
      statistic += (rare_seen - rare) * (rare_seen - rare) / rare;
      ++freedom;
    }
    // Wilson and Hilferty: the cube root is about normal. 4 standard deviations.
    const long double normal = (std::cbrt(statistic / freedom) - (1 - 2.0L / (9 * freedom))) / std::sqrt(2.0L / (9 * freedom));
    CHECK(std::fabs(normal) < 4, "case %zu: chi-square %Lg with %d degrees of freedom", c, statistic, freedom);
  }
}

std::set<int32_t> chosen_set(const std::vector<float>& logits, SamplingOptions options) {
  options.temperature = 1;
  Sampler sampler(options, 0, {}, int32_t(logits.size()));
  std::set<int32_t> seen;
  for (int i = 0; i < 1000; ++i) seen.insert(sample(sampler, logits));
  return seen;
}

std::vector<float> logs(std::initializer_list<double> probabilities) {
  std::vector<float> out;
  for (double p : probabilities) out.push_back(float(std::log(p)));
  return out;
}

void test_kept() {
  using Ids = std::set<int32_t>;
  const std::vector<float> four = logs({0.1, 0.4, 0.2, 0.3});
  CHECK((chosen_set(four, {.top_p = 0.05f}) == Ids{1}), "top_p 0.05");
  CHECK((chosen_set(four, {.top_p = 0.39f}) == Ids{1}), "top_p 0.39");
  CHECK((chosen_set(four, {.top_p = 0.41f}) == Ids{1, 3}), "top_p 0.41");
  CHECK((chosen_set(four, {.top_p = 0.71f}) == Ids{1, 2, 3}), "top_p 0.71");
  CHECK((chosen_set(four, {.top_p = 0.91f}) == Ids{0, 1, 2, 3}), "top_p 0.91");
  CHECK((chosen_set(four, {.min_p = 1}) == Ids{1}), "min_p 1");
  CHECK((chosen_set(four, {.min_p = 0.76f}) == Ids{1}), "min_p 0.76");
  CHECK((chosen_set(four, {.min_p = 0.74f}) == Ids{1, 3}), "min_p 0.74");
  CHECK((chosen_set(four, {.min_p = 0.24f}) == Ids{0, 1, 2, 3}), "min_p 0.24");
  CHECK((chosen_set(four, {.min_p = 1e-45f}) == Ids{0, 1, 2, 3}), "the least min_p");
  CHECK((chosen_set(four, {.top_p = 0.71f, .min_p = 0.6f}) == Ids{1, 3}), "min_p of what top_p keeps");
  // top_p of the whole would keep three; of the two likeliest it keeps one.
  CHECK((chosen_set(four, {.top_p = 0.55f, .top_k = 2}) == Ids{1}), "top_p of what top_k keeps");

  const std::vector<float> ties = {1, 3, 3, 3, 3, 1};
  CHECK((chosen_set(ties, {.top_k = 2}) == Ids{1, 2}), "top_k 2");
  CHECK((chosen_set(ties, {.top_k = 5}) == Ids{0, 1, 2, 3, 4}), "top_k 5");
  CHECK((chosen_set(ties, {.top_k = 1000000000}) == Ids{0, 1, 2, 3, 4, 5}), "top_k of more than there are");
  CHECK((chosen_set(ties, {.min_p = 1}) == Ids{1, 2, 3, 4}), "min_p 1 keeps equals");
  CHECK((chosen_set(std::vector<float>(8, 0), {.top_p = 0.5f}) == Ids{0, 1, 2, 3}), "exactly reached adds nothing");

  std::vector<float> few(500, -kInfinity);
  few[3] = few[400] = -2;
  for (const SamplingOptions& options :
       {SamplingOptions{}, SamplingOptions{.top_k = 10}, SamplingOptions{.top_p = 0.9f}, SamplingOptions{.min_p = 0.5f},
        SamplingOptions{.top_p = 0.9f, .min_p = 0.5f, .top_k = 10}}) {
    CHECK((chosen_set(few, options) == Ids{3, 400}), "-infinity is never chosen");
  }
}

// More tokens than top_p looks at first.
void test_wide_nucleus() {
  std::vector<float> logits(20000, 0);
  logits[19999] = 1e-3f;
  Sampler sampler({.temperature = 1, .top_p = 0.5f}, 0, {}, 20000);
  int32_t largest = 0;
  for (int i = 0; i < 200; ++i) {
    const int32_t id = sample(sampler, logits);
    if (id != 19999) largest = std::max(largest, id);
  }
  CHECK(largest > 9800 && largest < 10000, "the largest of 200 ids is %d", largest);
}

void test_masks() {
  Random random(8);
  for (float temperature : {0.0f, 1.0f}) {
    for (int round = 0; round < 100; ++round) {
      const std::vector<float> logits = random.logits(200);
      std::vector<int32_t> order(200);
      std::iota(order.begin(), order.end(), 0);
      std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return logits[size_t(a)] > logits[size_t(b)]; });
      Sampler sampler({.temperature = temperature}, uint64_t(round), {order.begin(), order.begin() + 10}, 200);
      const std::vector<int32_t> forbidden(order.begin() + 10, order.begin() + 20);
      const auto place = [&](int32_t id) { return std::find(order.begin(), order.end(), id) - order.begin(); };
      CHECK(place(sample(sampler, logits, {}, forbidden)) >= 20, "suppressed or forbidden");
      CHECK(place(sample(sampler, logits)) >= 10, "suppressed");
      if (temperature == 0) CHECK(sample(sampler, logits) == order[10], "the best that is left");
    }
    Sampler sampler({.temperature = temperature}, 0, {0}, 2);
    CHECK(sample(sampler, {0, 0}) == 1, "what is left");
    CHECK_INPUT_ERROR(kNothingLeft, sample(sampler, {0, 0}, {}, {1}));
    CHECK_INPUT_ERROR(kNothingLeft, sample(sampler, {0, -kInfinity}));
  }
}

void test_processors_in_the_sampler() {
  Sampler penalty({.repetition_penalty = 2}, 0, {}, 3);
  CHECK(sample(penalty, {3, 2, -9}) == 0, "no target");
  CHECK(sample(penalty, {3, 2, -9}, {0}) == 1, "a penalty");
  CHECK(sample(penalty, {3, 1, -9}, {0, 0, 0, 0}) == 0, "one penalty an id");
  Sampler ngrams({.no_repeat_ngram = 2}, 0, {}, 3);
  CHECK(sample(ngrams, {3, 2, -9}, {1, 0, 2, 1}) == 1, "0 would repeat 1 0");
  CHECK(sample(ngrams, {3, 2, -9}, {1, 0, 2}) == 0, "nothing is repeated");
}

void test_options() {
  check(SamplingOptions{.temperature = 2, .top_p = 1, .min_p = 1, .repetition_penalty = 0.5f, .top_k = 1 << 30});
  for (float bad : {-0.1f, kNaN, kInfinity, -kInfinity}) {
    CHECK_MISUSE("temperature: ", check(SamplingOptions{.temperature = bad}));
    CHECK_MISUSE("top_p: ", check(SamplingOptions{.top_p = bad}));
    CHECK_MISUSE("min_p: ", check(SamplingOptions{.min_p = bad}));
    CHECK_MISUSE("repetition_penalty: ", check(SamplingOptions{.repetition_penalty = bad}));
    CHECK_MISUSE("repetition_penalty: ", check(BeamOptions{.repetition_penalty = bad}));
  }
  CHECK_MISUSE("top_p: 0;", check(SamplingOptions{.top_p = 0}));
  CHECK_MISUSE("top_p: 1.01;", check(SamplingOptions{.top_p = 1.01f}));
  CHECK_MISUSE("min_p: 1.01;", check(SamplingOptions{.min_p = 1.01f}));
  CHECK_MISUSE("repetition_penalty: 0;", check(SamplingOptions{.repetition_penalty = 0}));
  CHECK_MISUSE("top_k: -1;", check(SamplingOptions{.top_k = -1}));
  CHECK_MISUSE("no_repeat_ngram: -1;", check(SamplingOptions{.no_repeat_ngram = -1}));
  CHECK_MISUSE("temperature: -1;", Sampler({.temperature = -1}, 0, {}, 5));
  CHECK_MISUSE("suppressed_ids: id 5; give ids from 0 to 4", Sampler({}, 0, {5}, 5));
  CHECK_MISUSE("suppressed_ids: id -1;", Sampler({}, 0, {-1}, 5));
  CHECK_MISUSE("vocab: 0;", Sampler({}, 0, {}, 0));
  Sampler sampler({}, 0, {}, 3);
  CHECK_MISUSE("logits: 2 of them; give 3", sample(sampler, {1, 2}));
  CHECK_MISUSE("target: id 3;", sample(sampler, {1, 2, 3}, {3}));
  CHECK_MISUSE("forbidden: id -1;", sample(sampler, {1, 2, 3}, {}, {-1}));

  CHECK_MISUSE("beams: 0;", check(BeamOptions{.beams = 0}));
  CHECK_MISUSE("beams: 65; give 1 to 64", check(BeamOptions{.beams = 65}));
  for (float bad : {-10.5f, 11.0f, kNaN, kInfinity}) {
    CHECK_MISUSE("length_penalty: ", check(BeamOptions{.length_penalty = bad}));
  }
  CHECK_MISUSE("max_new_tokens: 0;", check(BeamOptions{.max_new_tokens = 0}));
  CHECK_MISUSE("min_new_tokens: 3; give 0 to max_new_tokens (2)", check(BeamOptions{.max_new_tokens = 2, .min_new_tokens = 3}));
  CHECK_MISUSE("min_new_tokens: -1;", check(BeamOptions{.min_new_tokens = -1}));
  CHECK_MISUSE("no_repeat_ngram: -1;", check(BeamOptions{.no_repeat_ngram = -1}));
}

// Options at random: what is chosen may be chosen.
void test_random_options() {
  Random random(9);
  for (int round = 0; round < 3000; ++round) {
    const int vocab = random.integer(1, round % 20 ? 300 : 5000);
    std::vector<float> logits = random.logits(size_t(vocab), random.uniform(0.1f, 10), random.coin());
    SamplingOptions options{.temperature = random.coin() ? 0 : random.uniform(0.1f, 3)};
    if (random.coin()) options.top_k = random.integer(1, vocab + 1);
    if (random.coin()) options.top_p = random.uniform(0.01f, 1);
    if (random.coin()) options.min_p = random.uniform(0, 1);
    if (random.coin()) options.repetition_penalty = random.uniform(0.5f, 2);
    if (random.coin()) options.no_repeat_ngram = random.integer(1, 3);
    std::vector<int32_t> lists[3];  // suppressed, forbidden, target
    for (auto& list : lists) {
      for (int i = random.integer(0, vocab / 2); i > 0; --i) list.push_back(random.integer(0, vocab - 1));
    }
    std::vector<float> right = logits;
    if (options.repetition_penalty != 1) penalize_repetition(right, lists[2], options.repetition_penalty);
    if (options.no_repeat_ngram) forbid_repeated_ngrams(right, lists[2], size_t(options.no_repeat_ngram));
    forbid(right, lists[0]);
    forbid(right, lists[1]);
    Sampler sampler(options, uint64_t(round), lists[0], vocab);
    if (*std::max_element(right.begin(), right.end()) == -kInfinity) {
      CHECK_INPUT_ERROR(kNothingLeft, sample(sampler, logits, lists[2], lists[1]));
      continue;
    }
    const int32_t id = sample(sampler, logits, lists[2], lists[1]);
    if (options.temperature == 0) {
      CHECK(id == greedy(right), "round %d: %d is not the likeliest", round, id);
    } else {
      CHECK(distribution(right, options)[size_t(id)] > 0, "round %d: %d was not kept", round, id);
    }
  }
}

// ---- log-probabilities -------------------------------------------------------------------------------------------------

void test_logprobs() {
  Random random(10);
  for (int round = 0; round < 300; ++round) {
    const int vocab = random.integer(1, round % 10 ? 300 : 20000);
    std::vector<float> logits = random.logits(size_t(vocab), random.uniform(0.1f, 20), random.coin());
    for (float& logit : logits) logit += float(round % 7) * 10;
    if (vocab > 1 && random.coin()) logits[size_t(random.integer(1, vocab - 1))] = -kInfinity;
    if (round % 5 == 0) logits[0] += 60;  // nearly certain
    const long double largest = *std::max_element(logits.begin(), logits.end());
    long double rest = -1;
    for (float logit : logits) rest += std::exp(logit - largest);
    const auto right = [&](int32_t id) { return double(logits[size_t(id)] - largest - std::log1p(rest)); };
    const auto near = [](double a, double b) { return a == b || std::fabs(a - b) < 2e-6 * std::fabs(b) + 1e-12; };

    const int32_t chosen = random.integer(0, vocab - 1);
    const int n = random.integer(0, 120);
    const TopLogprobs top = top_logprobs(logits, chosen, n);
    CHECK(near(double(top.chosen), right(chosen)), "round %d: %.9g is %.9g", round, double(top.chosen), right(chosen));
    CHECK(top.chosen == logprob_of(logits, chosen) && top.chosen <= 0, "round %d: %g", round, double(top.chosen));
    std::vector<int32_t> order;
    for (int32_t i = 0; i < vocab; ++i) {
      if (logits[size_t(i)] > -kInfinity) order.push_back(i);
    }
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return logits[size_t(a)] > logits[size_t(b)]; });
    order.resize(std::min(order.size(), size_t(n)));
    CHECK(top.ids == order, "round %d: the %d likeliest of %d", round, n, vocab);
    for (size_t i = 0; i < order.size(); ++i) {
      CHECK(near(double(top.logprobs[i]), right(order[i])), "round %d: %.9g is %.9g", round, double(top.logprobs[i]),
            right(order[i]));
    }
    std::vector<float> all = logits;
    log_softmax(all);
    for (int i = 0; i < 20; ++i) {
      const int32_t id = random.integer(0, vocab - 1);
      CHECK(all[size_t(id)] == logprob_of(logits, id), "round %d: id %d", round, id);
    }
  }
  const std::vector<float> nothing(100, -kInfinity);
  CHECK_INPUT_ERROR("the model's logits are all -infinity", logprob_of(nothing, 0));
  CHECK_INPUT_ERROR("the model's logits are all -infinity", top_logprobs(nothing, 0, 5));
  CHECK_MISUSE("chosen: id 100; give ids from 0 to 99", logprob_of(nothing, 100));
  CHECK_MISUSE("chosen: id -1;", logprob_of(nothing, -1));
}

// ---- beam search -------------------------------------------------------------------------------------------------------

// A model of a few tokens: logits that depend on the whole target.
std::vector<float> toy_logits(const std::vector<int32_t>& target, size_t vocab, uint64_t seed) {
  for (int32_t id : target) seed = seed * 6364136223846793005u + uint64_t(id) + 1442695040888963407u;
  return Random(seed).logits(vocab, 1.5f);
}

void search_all(BeamSearch& search, size_t vocab, uint64_t seed) {
  while (!search.done()) {
    const size_t live = search.live();
    std::vector<std::vector<int32_t>> before;
    for (size_t beam = 0; beam < live; ++beam) before.push_back(search.target(beam));
    for (size_t beam = live; beam-- > 0;) {  // in any order
      std::vector<float> logits = toy_logits(search.target(beam), vocab, seed);
      search.feed(beam, logits);
    }
    const std::vector<size_t> parents = search.advance();
    CHECK(parents.size() == search.live(), "%zu parents of %zu beams", parents.size(), search.live());
    for (size_t beam = 0; beam < parents.size(); ++beam) {
      const std::vector<int32_t>& target = search.target(beam);
      CHECK(std::equal(target.begin(), target.end() - 1, before[parents[beam]].begin(), before[parents[beam]].end()),
            "beam %zu does not continue beam %zu", beam, parents[beam]);
    }
  }
}

// A search that is wider than there are targets finds all of them, in order.
void test_exhaustive_beams() {
  constexpr size_t kVocab = 4;
  constexpr int kLength = 3;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    for (float penalty : {0.0f, 1.0f, 2.0f, -1.0f}) {
      std::map<std::vector<int32_t>, double> right;  // with the stop id
      const std::function<void(std::vector<int32_t>, double)> extend = [&](std::vector<int32_t> ids, double sum) {
        const size_t length = ids.size();
        if (length == kLength || (length > 0 && ids.back() == 3)) {
          right[ids] = sum / std::pow(double(length), double(penalty));
          return;
        }
        std::vector<int32_t> target = {2};
        target.insert(target.end(), ids.begin(), ids.end());
        const std::vector<long double> p = softmax(toy_logits(target, kVocab, seed));
        for (int32_t id = 0; id < int32_t(kVocab); ++id) {
          ids.push_back(id);
          extend(ids, sum + double(std::log(p[size_t(id)])));
          ids.pop_back();
        }
      };
      extend({}, 0);
      BeamSearch search({.beams = kMaxBeams, .length_penalty = penalty, .max_new_tokens = kLength}, {3}, {}, {2}, kVocab);
      search_all(search, kVocab, seed);
      CHECK(search.results().size() == right.size(), "%zu targets of %zu", search.results().size(), right.size());
      double previous = 1;
      for (const auto& [ids, score, stopped] : search.results()) {
        std::vector<int32_t> whole = ids;
        if (stopped) whole.push_back(3);
        CHECK(right.count(whole) && std::fabs(right[whole] - score) < 1e-5, "seed %d: score %g", int(seed), score);
        CHECK(previous >= score, "seed %d: best first", int(seed));
        previous = score;
      }
    }
  }
}

// What options forbid is in no result; lengths keep their bounds.
void test_random_beams() {
  Random random(11);
  for (int round = 0; round < 500; ++round) {
    const int vocab = random.integer(8, 100);
    BeamOptions options{.beams = random.integer(1, 8), .length_penalty = random.uniform(-1, 2)};
    options.early_stopping = random.coin();
    options.max_new_tokens = random.integer(1, 8);
    options.min_new_tokens = random.integer(0, options.max_new_tokens);
    if (random.coin()) options.repetition_penalty = random.uniform(0.5f, 3);
    options.no_repeat_ngram = random.integer(0, 3);
    std::vector<int32_t> stop, suppressed, start = {random.integer(0, vocab - 1)};
    for (int i = random.integer(0, 3); i > 0; --i) stop.push_back(random.integer(0, vocab - 1));
    for (int i = random.integer(0, 3); i > 0; --i) suppressed.push_back(random.integer(0, vocab - 1));
    for (int i = random.integer(0, 3); i > 0; --i) start.push_back(random.integer(0, vocab - 1));
    BeamSearch search(options, stop, suppressed, start, vocab);
    CHECK(search.live() == 1 && search.target(0) == start, "round %d", round);
    try {
      search_all(search, size_t(vocab), uint64_t(round));
    } catch (const Error& error) {  // small vocabularies run out of n-grams
      CHECK(std::string(error.what()).rfind(kNothingLeft, 0) == 0, "round %d: %s", round, error.what());
      continue;
    }
    CHECK(!search.results().empty() && search.results().size() <= size_t(options.beams), "round %d", round);
    CHECK(search.live() == 0, "round %d: live when done", round);
    for (const auto& [ids, score, stopped] : search.results()) {
      const int length = int(ids.size()) + stopped;
      CHECK(std::isfinite(score), "round %d: score %g", round, score);
      CHECK(length <= options.max_new_tokens && length > (stopped ? options.min_new_tokens : 0), "round %d: %d ids", round,
            length);
      CHECK(stopped || length == options.max_new_tokens, "round %d: ended by nothing", round);
      std::vector<int32_t> whole = start;
      for (int32_t id : ids) {
        CHECK(!std::count(stop.begin(), stop.end(), id), "round %d: stop id %d within", round, id);
        CHECK(!std::count(suppressed.begin(), suppressed.end(), id), "round %d: suppressed id %d", round, id);
        if (options.no_repeat_ngram) {
          std::vector<float> scores(size_t(vocab), 0);
          forbid_repeated_ngrams(scores, whole, size_t(options.no_repeat_ngram));
          CHECK(scores[size_t(id)] == 0, "round %d: an n-gram repeats", round);
        }
        whole.push_back(id);
      }
    }
  }
}

void test_beam_misuse() {
  std::vector<float> logits = {1, 2, 3};
  BeamSearch search({.beams = 2, .max_new_tokens = 2}, {}, {}, {0}, 3);
  CHECK_MISUSE("advance: feed every live beam first", search.advance());
  CHECK_MISUSE("beam 1: ", search.feed(1, logits));
  CHECK_MISUSE("logits: 2 of them; give 3", search.feed(0, std::span(logits).first(2)));
  search.feed(0, logits);
  CHECK_MISUSE("beam 0: ", search.feed(0, logits));
  CHECK(search.advance().size() == 2, "two beams after the first step");
  search.feed(1, logits);
  CHECK_MISUSE("advance: ", search.advance());
  search.feed(0, logits);
  search.advance();
  CHECK(search.done() && search.results().size() == 2, "done after two ids");
  CHECK_MISUSE("advance: ", search.advance());
  CHECK_MISUSE("beam 0: ", search.feed(0, logits));

  CHECK_MISUSE("stop_ids: id 3;", BeamSearch({}, {3}, {}, {0}, 3));
  CHECK_MISUSE("suppressed_ids: id 3;", BeamSearch({}, {}, {3}, {0}, 3));
  CHECK_MISUSE("start: id -1;", BeamSearch({}, {}, {}, {-1}, 3));
  CHECK_MISUSE("beams: 0;", BeamSearch({.beams = 0}, {}, {}, {0}, 3));

  BeamSearch nothing({.beams = 2}, {}, {0, 1, 2}, {0}, 3);
  nothing.feed(0, logits = {1, 2, 3});
  CHECK_INPUT_ERROR(kNothingLeft, nothing.advance());
}

const std::vector<std::pair<const char*, void (*)()>> kTests = {
    {"exp", test_exp},
    {"best", test_best},
    {"broken_numbers", test_broken_numbers},
    {"repetition_penalty", test_repetition_penalty},
    {"ngrams", test_ngrams},
    {"greedy", test_greedy},
    {"extreme_temperature", test_extreme_temperature},
    {"seed", test_seed},
    {"one_draw_a_call", test_one_draw_a_call},
    {"distribution", test_distribution},
    {"kept", test_kept},
    {"wide_nucleus", test_wide_nucleus},
    {"masks", test_masks},
    {"processors_in_the_sampler", test_processors_in_the_sampler},
    {"options", test_options},
    {"random_options", test_random_options},
    {"logprobs", test_logprobs},
    {"exhaustive_beams", test_exhaustive_beams},
    {"random_beams", test_random_beams},
    {"beam_misuse", test_beam_misuse},
};

}  // namespace

int run(const std::set<std::string>& names) {
  int failures = 0;
  size_t ran = 0;
  for (const auto& [name, test] : kTests) {
    if (!names.empty() && !names.count(name)) continue;
    ++ran;
    try {
      test();
    } catch (const Failed&) {
      std::fprintf(stderr, "FAILED: %s\n", name);
      ++failures;
    } catch (const std::exception& error) {
      std::fprintf(stderr, "FAILED: %s: %s\n", name, error.what());
      ++failures;
    }
  }
  if (ran < std::max<size_t>(1, names.size())) {
    std::fprintf(stderr, "no test of that name; they are in kTests\n");
    return 1;
  }
  std::printf("%zu tests, %d failed\n", ran, failures);
  return failures > 0;
}

}  // namespace t5g2::test

int main(int argc, char** argv) { return t5g2::test::run({argv + 1, argv + argc}); }
