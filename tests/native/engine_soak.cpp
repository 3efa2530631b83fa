// Many generations in one process, from several threads that share an engine and cancel at random, over the C interface.
//
//     engine_soak BUNDLE [--generations 10000] [--threads 1] [--cpu-threads 1] [--cancel 1] [--seed 1]
//
// Prints the resident memory as it goes and its slope over the second half. Every target that was not cancelled must be the one
// that its source and seed gave before; exits with 1 where it is not, or where any call fails.

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "t5g2.h"

namespace {

struct Options {
  std::map<std::string, long> values = {
      {"--generations", 10000}, {"--threads", 1}, {"--cpu-threads", 1}, {"--cancel", 1}, {"--seed", 1}};
  long operator[](const char* name) const { return values.at(name); }
};

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "engine_soak: %s\n", what.c_str());
  std::exit(1);
}

void check(t5g2_status status, const char* what) {
  if (status < 0) fail(std::string(what) + ": " + t5g2_error());
}

long resident_kb() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("VmRSS:", 0) == 0) return std::atol(line.c_str() + 6);
  }
  return 0;
}

constexpr int kSources = 20;

std::string source_text(int n) { return "ISO date: " + std::to_string(n % 28 + 1) + " March " + std::to_string(1990 + n); }

// Answers sources until all generations are done.
class Worker {
 public:
  Worker(t5g2_engine* engine, const Options& options, std::atomic<long>& done, uint64_t seed)
      : engine_(engine), options_(options), done_(done), random_(seed) {}

  void run() {
    while (done_.fetch_add(1) < options_["--generations"]) {
      const int n = int(random_() % kSources);
      t5g2_session* session = nullptr;
      const std::string text = source_text(n);
      t5g2_source source{};
      source.text = text.c_str();
      check(t5g2_session_new(engine_, &source, &session), "encoding");
      generate(session, n);
      t5g2_session_free(session);
    }
  }

 private:
  void generate(t5g2_session* session, int n) {
    t5g2_generation_options options;
    t5g2_generation_defaults(&options);
    options.temperature = 1.5f;
    options.seed = n;
    options.max_new_tokens = 24;
    options.beams = n % 5 == 0 ? 3 : 1;
    if (options.beams > 1) options.temperature = 0;
    t5g2_generation* generation = nullptr;
    check(t5g2_generation_start(session, &options, &generation), "starting");
    const bool cancel = options_["--cancel"] && random_() % 4 == 0;
    std::thread canceller;
    if (cancel) {
      const auto pause = std::chrono::microseconds(random_() % 3000);
      canceller = std::thread([generation, pause] {
        std::this_thread::sleep_for(pause);
        t5g2_generation_cancel(generation);
      });
    }
    std::string text;
    t5g2_token token;
    t5g2_status status;
    while ((status = t5g2_generation_next(generation, &token)) == T5G2_OK) text.append(token.text, token.text_length);
    check(status, "generating");
    if (canceller.joinable()) canceller.join();
    if (status == T5G2_DONE) compare(n, text);
    if (status == T5G2_CANCELLED && !cancel) fail("cancelled by nobody");
    t5g2_generation_free(generation);
  }

  // Every worker asks the same questions with the same seeds.
  static void compare(int n, const std::string& text) {
    static std::mutex mutex;
    static std::map<int, std::string> answers;
    const std::lock_guard lock(mutex);
    const std::string& first = answers.emplace(n, text).first->second;
    if (first != text) fail("source " + std::to_string(n) + " gave '" + first + "' and then '" + text + "'");
  }

  t5g2_engine* engine_;
  const Options& options_;
  std::atomic<long>& done_;
  std::mt19937_64 random_;
};

}  // namespace

int main(int argc, char** argv) {
  Options options;
  for (int i = 2; i + 1 < argc; i += 2) {
    if (!options.values.count(argv[i])) fail(std::string("unknown option ") + argv[i]);
    options.values[argv[i]] = std::atol(argv[i + 1]);
  }
  if (argc < 2 || argc % 2) fail("usage: engine_soak BUNDLE [--generations N] …");
  t5g2_engine* engine = nullptr;
  t5g2_engine_options engine_options;
  t5g2_engine_defaults(&engine_options);
  engine_options.threads = int32_t(options["--cpu-threads"]);
  engine_options.cache_folder = "";
  check(t5g2_engine_open(argv[1], &engine_options, &engine), "opening");

  std::atomic<long> done = 0;
  std::vector<std::thread> workers;
  for (long i = 0; i < options["--threads"]; ++i) {
    workers.emplace_back([&, i] { Worker(engine, options, done, uint64_t(options["--seed"] * 1000 + i)).run(); });
  }
  std::thread watcher([&] {
    const long all = options["--generations"], step = all < 20 ? 1 : all / 20;
    long middle = 0, end = 0;
    for (long next = step; next <= all; next += step) {
      while (done.load() < next) std::this_thread::sleep_for(std::chrono::milliseconds(5));
      end = resident_kb();
      if (next <= all / 2) middle = end;
      std::printf("%ld generations, %ld KB resident\n", next, end);
    }
    std::printf("slope over the second half: %.3f KB a generation\n", double(end - middle) / double(all - all / 2));
  });
  for (std::thread& worker : workers) worker.join();
  watcher.join();
  t5g2_engine_free(engine);
}
