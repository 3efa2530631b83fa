// Chooses the kernels for this CPU, once.

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "kernels.h"
#include "tables.h"

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#ifndef HWCAP_ASIMDDP
#define HWCAP_ASIMDDP (1 << 20)
#endif
#ifndef HWCAP2_I8MM
#define HWCAP2_I8MM (1 << 13)
#endif
#endif

namespace t5g2 {
namespace {

struct Choice {
  const Kernels* fast;
  const Kernels* exact;
};

struct Available {
  Choice choices[4];
  const char* names[5] = {};
  int count = 0;

  void add(const Kernels& fast, const Kernels& exact) {
    names[count] = fast.name;
    choices[count++] = {&fast, &exact};
  }

  Available() {
    add(kPortable, kPortable);
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("f16c")) return;
    add(kAvx2, kAvx2);
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512dq") ||
        !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512vnni")) {
      return;
    }
    add(kAvx512Vnni, kAvx512Vnni);
    if (__builtin_cpu_supports("amx-int8") && __builtin_cpu_supports("amx-bf16") && __builtin_cpu_supports("avx512bf16") &&
        enable_amx()) {
      add(kAmx, kAmxExact);
    }
#elif defined(__aarch64__) && defined(__linux__)
    add(kNeon, kNeon);
    if (!(getauxval(AT_HWCAP) & HWCAP_ASIMDDP)) return;
    add(kNeonDotprod, kNeonDotprod);
    if (getauxval(AT_HWCAP2) & HWCAP2_I8MM) add(kNeonI8mm, kNeonI8mm);
#elif defined(__aarch64__)
    add(kNeon, kNeon);
    add(kNeonDotprod, kNeonDotprod);  // every Apple CPU since 2018 has it
#endif
  }
};

const Available& available() {
  static const Available instance;
  return instance;
}

const Choice* find(const char* name) {
  const Available& all = available();
  for (int i = 0; i < all.count; ++i) {
    if (std::strcmp(all.names[i], name) == 0) return &all.choices[i];
  }
  return nullptr;
}

const Choice* from_environment() {
  const Available& all = available();
  const Choice* best = &all.choices[all.count - 1];
  const char* wanted = std::getenv("T5G2_CPU");
  if (!wanted || !*wanted) return best;
  if (const Choice* choice = find(wanted)) return choice;
  std::fprintf(stderr, "t5g2: T5G2_CPU=%s: this CPU has no such kernels; using %s\n", wanted, best->fast->name);
  return best;
}

std::atomic<const Choice*>& chosen() {
  static std::atomic<const Choice*> choice{from_environment()};
  return choice;
}

}  // namespace

const Kernels& kernels(bool exact) {
  const Choice* choice = chosen().load(std::memory_order_relaxed);
  return exact ? *choice->exact : *choice->fast;
}

bool use_kernels(const char* name) {
  const Choice* choice = find(name);
  if (choice) chosen().store(choice, std::memory_order_relaxed);
  return choice != nullptr;
}

const char* const* available_kernels() { return available().names; }

}  // namespace t5g2
