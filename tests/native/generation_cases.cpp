// What the engine chooses, for tests/test_engine_generation.py: requests on stdin, answers on stdout.
//
// A request is a line: a verb and key=value pairs, lists with commas, as `sample temperature=1 vocab=50 suppressed=1,2`. Logits
// follow as raw float32, one row of `vocab` at a time. Answers are lines.
//
//     sample     calls=n and options; n rows; n lines `id u`, u: the number that the n-th draw gives by the standard
//     processed  options; a row; the row after repetition_penalty and no_repeat_ngram, raw
//     logprobs   chosen=id n=n; a row; a line `logprob` and a line `id logprob id logprob ...`
//     beams      options, stop=, start=; until done a line `live n`, n lines of targets, n rows; then `done n` and n lines
//                `score stopped ids`

#include <cstdio>
#include <iostream>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "runtime/engine/beam_search.h"
#include "runtime/engine/logits_processors.h"
#include "runtime/engine/logprobs.h"
#include "runtime/engine/sampler.h"

namespace {

using namespace t5g2;

class Request {
 public:
  explicit Request(const std::string& line) {
    std::istringstream words(line);
    words >> verb;
    for (std::string word; words >> word;) {
      const size_t equals = word.find('=');
      values_[word.substr(0, equals)] = word.substr(equals + 1);
    }
  }
  float number(const char* key, float otherwise) const { return has(key) ? std::stof(values_.at(key)) : otherwise; }
  int32_t whole(const char* key, int32_t otherwise) const { return has(key) ? std::stoi(values_.at(key)) : otherwise; }
  std::vector<int32_t> list(const char* key) const {
    std::vector<int32_t> out;
    if (!has(key)) return out;
    std::istringstream items(values_.at(key));
    for (std::string item; std::getline(items, item, ',');) out.push_back(std::stoi(item));
    return out;
  }
  std::vector<float> row() const {
    std::vector<float> logits(size_t(whole("vocab", 0)));
    std::cin.read(reinterpret_cast<char*>(logits.data()), std::streamsize(logits.size() * sizeof(float)));
    return logits;
  }

  std::string verb;

 private:
  bool has(const char* key) const { return values_.count(key) > 0; }
  std::map<std::string, std::string> values_;
};

void sample(const Request& request) {
  SamplingOptions options{.temperature = request.number("temperature", 0),
                          .top_p = request.number("top_p", 1),
                          .min_p = request.number("min_p", 0),
                          .repetition_penalty = request.number("repetition_penalty", 1),
                          .top_k = request.whole("top_k", 0),
                          .no_repeat_ngram = request.whole("no_repeat_ngram", 0)};
  const uint64_t seed = uint64_t(request.whole("seed", 0));
  Sampler sampler(options, seed, request.list("suppressed"), request.whole("vocab", 0));
  std::mt19937_64 random(seed);
  for (int i = request.whole("calls", 1); i > 0; --i) {
    std::vector<float> logits = request.row();
    const int32_t id = sampler.sample(logits, request.list("target"), request.list("forbidden"));
    std::cout << id << ' ' << double(random() >> 11) / 9007199254740992.0 << '\n';
  }
}

void processed(const Request& request) {
  std::vector<float> logits = request.row();
  const std::vector<int32_t> target = request.list("target");
  penalize_repetition(logits, target, request.number("repetition_penalty", 1));
  if (const int32_t n = request.whole("no_repeat_ngram", 0)) forbid_repeated_ngrams(logits, target, size_t(n));
  std::cout.write(reinterpret_cast<const char*>(logits.data()), std::streamsize(logits.size() * sizeof(float)));
}

void logprobs(const Request& request) {
  const std::vector<float> logits = request.row();
  const TopLogprobs top = top_logprobs(logits, request.whole("chosen", 0), request.whole("n", 0));
  std::cout << top.chosen << '\n';
  for (size_t i = 0; i < top.ids.size(); ++i) std::cout << top.ids[i] << ' ' << top.logprobs[i] << ' ';
  std::cout << '\n';
}

void beams(const Request& request) {
  const BeamOptions options{.beams = request.whole("beams", 1),
                            .length_penalty = request.number("length_penalty", 1),
                            .early_stopping = request.whole("early_stopping", 0) != 0,
                            .max_new_tokens = request.whole("max_new_tokens", 1),
                            .min_new_tokens = request.whole("min_new_tokens", 0),
                            .repetition_penalty = request.number("repetition_penalty", 1),
                            .no_repeat_ngram = request.whole("no_repeat_ngram", 0)};
  BeamSearch search(options, request.list("stop"), request.list("suppressed"), request.list("start"),
                    request.whole("vocab", 0));
  while (!search.done()) {
    std::cout << "live " << search.live() << '\n';
    for (size_t i = 0; i < search.live(); ++i) {
      for (int32_t id : search.target(i)) std::cout << id << ' ';
      std::cout << '\n';
    }
    std::cout.flush();
    for (size_t i = 0; i < search.live(); ++i) {
      std::vector<float> logits = request.row();
      search.feed(i, logits);
    }
    search.advance();
  }
  std::cout << "done " << search.results().size() << '\n';
  for (const auto& [ids, score, stopped] : search.results()) {
    std::cout << score << ' ' << stopped;
    for (int32_t id : ids) std::cout << ' ' << id;
    std::cout << '\n';
  }
}

}  // namespace

int main() {
  const std::map<std::string, void (*)(const Request&)> verbs = {
      {"sample", sample}, {"processed", processed}, {"logprobs", logprobs}, {"beams", beams}};
  std::cout.precision(17);
  for (std::string line; std::getline(std::cin, line);) {
    const Request request(line);
    const auto verb = verbs.find(request.verb);
    if (verb == verbs.end()) {
      std::fprintf(stderr, "no verb '%s'\n", request.verb.c_str());
      return 2;
    }
    verb->second(request);
    std::cout.flush();
  }
  return 0;
}
