#include "score.h"

#include "console.h"

namespace t5g2::cli {

double score(const Engine& engine, const Session& session, std::vector<int32_t> target_ids) {
  target_ids.push_back(engine.info().eos_id);
  double sum = 0;
  for (const float logprob : take(session.score(target_ids))) sum += double(logprob);
  return sum;
}

}  // namespace t5g2::cli
