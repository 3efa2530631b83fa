// Calls every function of t5g2.hpp and checks it against the others: face_check BUNDLE FILE, where FILE may be written. The
// bundle is the tests' tiny one: vocabulary of 300, pictures of 56 x 56.

#include <cmath>
#include <cstdio>
#include <thread>

#include "t5g2.hpp"

namespace {

int failures = 0;

#define CHECK(condition)                                                                     \
  if (!(condition)) {                                                                        \
    std::fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #condition, t5g2_error());   \
    ++failures;                                                                              \
  }

using t5g2::Engine;
using t5g2::Generation;
using t5g2::Session;

std::vector<int32_t> ids_of(Generation generation) {
  while (true) {
    const auto token = generation.next();
    if (!token || !*token) break;
  }
  const auto target = generation.result();
  return {target->ids.begin(), target->ids.end()};
}

void check_errors(const Engine& engine) {
  const auto none = Engine::open("/gone");
  CHECK(!none.ok() && !none && none.error().status == T5G2_ERROR && none.error().message.starts_with("/gone: no such bundle"));
  CHECK(Engine::open("/gone", {.threads = 1000, .cache_folder = ""}).error().status != T5G2_OK);
  CHECK(Session::make(engine, {}).error().status == T5G2_ERROR);
  CHECK(Session::make(engine, {.text = "w5", .ids = std::vector<int32_t>{2}}).error().status == T5G2_USAGE);
  CHECK(Session::make(engine, {.text = "w5", .pixels = std::vector<float>(7)}).error().status == T5G2_USAGE);
  CHECK(Session::load(engine, "/gone").error().status == T5G2_ERROR);
  const auto session = Session::make(engine, {.text = ""});
  CHECK(session && session->ids().value() == std::vector<int32_t>{2});
  CHECK(session->save("/gone/x").error().status == T5G2_ERROR);
  CHECK(session->score(std::vector<int32_t>{300}).error().status == T5G2_ERROR);
  CHECK(Generation::start(*session, {.top_p = 2}).error().status == T5G2_USAGE);
  CHECK(Generation::start(*session, {.stop_strings = {std::string("a\0b", 3)}}).error().status == T5G2_USAGE);
  CHECK(Generation::start(*session)->result(1).error().status == T5G2_USAGE);
}

void check_text(const Engine& engine) {
  const std::string_view two = "w10 w20 and more";  // a view that does not end in a NUL
  CHECK(engine.source_ids(two.substr(0, 7)).value() == (std::vector<int32_t>{2, 10, 20}));
  CHECK(engine.source_ids("").value() == std::vector<int32_t>{2} && engine.source_ids({}).ok());
  CHECK(engine.source_ids("<start_of_image>", 1)->size() > 4 && !engine.source_ids("<start_of_image>").ok());
  CHECK(engine.target_ids(two.substr(0, 3)).value() == std::vector<int32_t>{10} && engine.target_ids({})->empty());
  const std::vector<int32_t> ids(100, 10), bos{2};
  CHECK(engine.text_of_ids(ids)->size() >= 300 && engine.text_of_ids({})->empty());
  CHECK(engine.text_of_ids(bos).value() == "" && engine.text_of_ids(bos, false).value() == "<bos>");
}

void check_sessions(const Engine& engine, const std::string& file) {
  const std::vector<int32_t> ids{2, 184, 151, 187}, target{10, 11};
  const auto session = Session::make(engine, {.ids = ids});
  CHECK(session && session->ids().value() == ids);
  const auto by_text = Session::make(engine, {.text = "w184 w151 w187"});
  CHECK(by_text->states().value() == session->states().value());
  const size_t hidden = size_t(engine.info().hidden_size);
  CHECK(session->states()->size() == ids.size() * hidden && session->states(true)->size() == hidden);
  CHECK(session->logits(target)->size() == target.size() * size_t(engine.info().vocab_size));
  CHECK(session->score(target)->size() == target.size() && session->score(target).value()[0] < 0);
  CHECK(session->save(file).ok());
  const auto loaded = Session::load(engine, file);
  CHECK(loaded && loaded->score(target).value() == session->score(target).value());
}

void check_pictures(const Engine& engine) {
  const std::vector<uint8_t> grey(56 * 56 * 3, 51);
  const t5g2::Image image{grey.data(), 56, 56, 3, 0};
  const auto session = Session::make(engine, {.text = "<start_of_image> w5", .images = {&image, 1}});
  CHECK(session.ok());
  const std::vector<float> pixels(3 * 56 * 56, (51 / 255.0f - 0.5f) / 0.5f);
  const auto normalised = Session::make(engine, {.text = "<start_of_image> w5", .pixels = pixels});
  const auto one = session->states(true).value(), other = normalised->states(true).value();
  for (size_t i = 0; i < one.size(); ++i) CHECK(std::fabs(one[i] - other[i]) < 1e-3f);
}

void check_generation(const Engine& engine) {
  const auto session = Session::make(engine, {.text = "w184 w151 w187"});
  const auto greedy = ids_of(*Generation::start(*session, {.max_new_tokens = 6}));
  CHECK(greedy.size() == 6);
  const std::vector<int32_t> last(greedy.begin() + 1, greedy.end());
  CHECK(ids_of(*Generation::start(*session, {.max_new_tokens = 5, .prefix_ids = {greedy[0]}})) == last);
  const std::string first = *engine.text_of_ids({&greedy[0], 1});
  CHECK(ids_of(*Generation::start(*session, {.max_new_tokens = 5, .prefix_text = first})) == last);
  CHECK(ids_of(*Generation::start(*session, {.stop_ids = {greedy[0]}})).empty());
  CHECK(ids_of(*Generation::start(*session, {.suppressed_ids = {greedy[0]}}))[0] != greedy[0]);
  auto scored = Generation::start(*session, {.max_new_tokens = 1, .logprobs = 3});
  const auto token = scored->next();
  CHECK((*token)->id == greedy[0] && (*token)->top_ids.size() == 3 && (*token)->logprob == (*token)->top_logprobs[0]);
  CHECK(scored->next().ok() && !*scored->next() && scored->result()->finish == T5G2_FINISH_LENGTH);
  auto beams = Generation::start(*session, {.max_new_tokens = 4, .beams = 2, .length_penalty = 0.5f, .early_stopping = true});
  CHECK(*beams->next());  // searches
  CHECK(beams->result(0)->score >= beams->result(1)->score && beams->result(0)->score < 0);
  auto cancelled = Generation::start(*session);
  std::thread([&] { cancelled->cancel(); }).join();
  CHECK(!*cancelled->next() && cancelled->result()->finish == T5G2_FINISH_CANCELLED);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const auto engine = Engine::open(argv[1], {.threads = 1});
  CHECK(engine.ok());
  if (!engine) return 1;
  const auto info = engine->info();
  CHECK(info.vocab_size == 300 && info.image_side == 56 && info.has_tokenizer && info.bos_id == 2);
  CHECK(engine->manifest().starts_with("{") && !engine->kernels().empty());
  check_errors(*engine);
  check_text(*engine);
  check_sessions(*engine, argv[2]);
  check_pictures(*engine);
  check_generation(*engine);
  return failures ? 1 : 0;
}
