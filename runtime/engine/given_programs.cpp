#include "given_programs.h"

#include "error.h"

namespace t5g2 {
namespace {

void check(const t5g2_programs& programs, int32_t status) {
  if (!status) return;
  const char* said = programs.error(programs.context);
  fail(said && *said ? said : "the caller's program failed and said nothing");
}

class GivenText : public TextProgram {
 public:
  GivenText(const Manifest& manifest, const t5g2_programs& programs)
      : manifest_(manifest), programs_(programs), logits_(size_t(manifest.vocab_size) * sizeof(float)) {}

  EncodedSource encode(std::vector<int32_t> ids, float* features) override {
    const size_t n = ids.size();
    EncodedSource source{std::move(ids), Pages(manifest_.cross_bytes(n), true),
                         std::vector<float>(n * size_t(manifest_.hidden_size))};
    check(programs_, programs_.encode(programs_.context, source.ids.data(), n, features, source.cross.data(),
                                      source.states.data()));
    return source;
  }

  void step(const EncodedSource& source, Pages& cache, std::span<const int32_t> ids, int64_t position,
            const ReadLogits& read) override {
    float* logits = reinterpret_cast<float*>(logits_.data());
    check(programs_, programs_.step(programs_.context, ids[0], size_t(position), source.ids.size(),  // max_rows is 1
                                    source.cross.data(), cache.data(), logits));
    read({logits, size_t(manifest_.vocab_size)});
  }

 private:
  const Manifest& manifest_;
  const t5g2_programs programs_;
  Pages logits_;  // aligned as caches are
};

}  // namespace

GivenPrograms::GivenPrograms(const Manifest& manifest, const t5g2_programs& programs)
    : manifest_(manifest), programs_(programs) {
  if (programs.size != sizeof(t5g2_programs)) misuse("programs: set its size to sizeof(t5g2_programs)");
  if (!programs.encode || !programs.step || !programs.error || (manifest.has_vision && !programs.vision)) {
    misuse("programs: a function is NULL; give all that the bundle needs");
  }
}

std::unique_ptr<TextProgram> GivenPrograms::text() const { return std::make_unique<GivenText>(manifest_, programs_); }

void GivenPrograms::vision(const float* pixels, float* features) const {
  check(programs_, programs_.vision(programs_.context, pixels, features));
}

}  // namespace t5g2
