// Runs a fuzz target without libFuzzer: on each seed file, then on random changes of them.
//
//     fuzz_<name> [--runs 1000] [--seed 1] FILE…

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

using Bytes = std::vector<uint8_t>;

// A few flips, overwrites, cuts, insertions and repetitions.
Bytes changed(Bytes bytes, const std::vector<Bytes>& seeds, std::mt19937_64& random) {
  const auto below = [&](size_t n) { return n ? size_t(random() % n) : 0; };
  for (size_t change = 1 + below(4); change; --change) {
    const size_t at = below(bytes.size() + 1), size = bytes.size();
    switch (random() % 6) {
      case 0:
        if (at < size) bytes[at] ^= uint8_t(1 << below(8));
        break;
      case 1:
        for (size_t i = at; i < size && i < at + 4; ++i) bytes[i] = uint8_t(random());
        break;
      case 2:
        bytes.resize(at);
        break;
      case 3:
        bytes.insert(bytes.begin() + long(at), 1 + below(8), uint8_t(random()));
        break;
      case 4: {
        const Bytes other = seeds[below(seeds.size())];
        const size_t from = below(other.size() + 1), count = below(other.size() - from + 1);
        bytes.insert(bytes.begin() + long(at), other.begin() + long(from), other.begin() + long(from + count));
        break;
      }
      case 5:
        bytes.erase(bytes.begin() + long(at), bytes.begin() + long(at + below(size - at + 1)));
        break;
    }
  }
  return bytes;
}

void run(const Bytes& bytes) {
  const Bytes exact = bytes;  // no spare capacity, so that the address sanitizer sees a step beyond
  LLVMFuzzerTestOneInput(exact.data(), exact.size());
}

}  // namespace

int main(int argc, char** argv) {
  uint64_t runs = 1000, seed = 1;
  std::vector<Bytes> seeds;
  for (int i = 1; i < argc; ++i) {
    if (!std::strcmp(argv[i], "--runs") && i + 1 < argc) {
      runs = std::strtoull(argv[++i], nullptr, 10);
    } else if (!std::strcmp(argv[i], "--seed") && i + 1 < argc) {
      seed = std::strtoull(argv[++i], nullptr, 10);
    } else {
      std::ifstream file(argv[i], std::ios::binary);
      if (!file) {
        std::fprintf(stderr, "%s: cannot be read\n", argv[i]);
        return 2;
      }
      seeds.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    }
  }
  if (seeds.empty()) seeds.emplace_back();
  for (const Bytes& bytes : seeds) run(bytes);
  std::mt19937_64 random(seed);
  for (uint64_t i = 0; i < runs; ++i) run(changed(seeds[random() % seeds.size()], seeds, random));
  std::printf("%llu runs\n", static_cast<unsigned long long>(runs + seeds.size()));
}
