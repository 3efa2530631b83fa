#include <cstdio>
#include <string>

#include "answer.h"
#include "console.h"
#include "memory.h"

namespace t5g2::cli {
namespace {

template <class... Values>
void line(const char* format, Values... values) {
  char text[256];
  std::snprintf(text, sizeof(text), format, values...);
  remark(text);
}

double rate(size_t count, double seconds) { return seconds > 0 ? double(count) / seconds : 0; }

}  // namespace

void print_stats(const Engine& engine, const Stats& s) {
  const EngineInfo info = engine.info();
  line("load         %8.3f s, of which %.3f s to check the files\n", info.read_seconds + info.load_seconds, info.read_seconds);
  if (s.sources) {
    line("encode       %8.3f s, %zu tokens, %.1f tokens/s\n", s.encode_seconds, s.source_tokens,
         rate(s.source_tokens, s.encode_seconds));
  }
  if (s.targets) {
    line("first token  %8.3f s%s, reading the source included\n", s.first_seconds / double(s.targets),
         s.targets > 1 ? " on average" : "");
    line("decode       %8.3f s, %zu tokens, %.1f tokens/s\n", s.decode_seconds, s.decoded_tokens,
         rate(s.decoded_tokens, s.decode_seconds));
  }
  line("peak memory  %8.1f MB\n", peak_memory_mb());
  line("threads      %8d\n", int(info.threads));
  line("kernels      %8s\n", std::string(engine.kernels()).c_str());
}

}  // namespace t5g2::cli
