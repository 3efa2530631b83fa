// JSON lines in and out.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <type_traits>

#include <nlohmann/json.hpp>

#include "console.h"
#include "modes.h"
#include "score.h"
#include "settings.h"

namespace t5g2::cli {
namespace {

using Json = nlohmann::ordered_json;

struct Request {
  Json id;  // null: none
  Input input;
  std::vector<std::string> images;
  std::vector<Json> targets;
  bool scores = false;
  GenerationOptions generation;
};

[[noreturn]] void refuse(const std::string& key, const char* wanted) { fail("\"", key, "\": give ", wanted); }

template <class T>
T whole_number(const std::string& key, const Json& value) {
  // Unsigned ones are those above int64's range, too.
  if (!value.is_number_integer()) refuse(key, "a whole number");
  const bool too_large = value.is_number_unsigned() && value.get<uint64_t>() > uint64_t(std::numeric_limits<T>::max());
  if (too_large || value.get<int64_t>() < std::numeric_limits<T>::min()) {
    fail("\"", key, "\": ", value.dump(), " is out of range; give ", std::numeric_limits<T>::min(), " to ",
         std::numeric_limits<T>::max());
  }
  return value.get<T>();
}

std::string text(const std::string& key, const Json& value) {
  if (!value.is_string()) refuse(key, "a text");
  return value.get<std::string>();
}

std::vector<int32_t> ids(const std::string& key, const Json& value) {
  if (!value.is_array()) refuse(key, "a list of token ids");
  std::vector<int32_t> ids;
  for (const Json& id : value) ids.push_back(whole_number<int32_t>(key, id));
  return ids;
}

std::vector<std::string> texts(const std::string& key, const Json& value) {
  if (!value.is_array()) refuse(key, "a list of texts");
  std::vector<std::string> texts;
  for (const Json& element : value) {
    texts.push_back(text(key, element));
    if (texts.back().find('\0') != std::string::npos) refuse(key, "texts without \\u0000");
  }
  return texts;
}

void set(const Setting& setting, GenerationOptions& options, const Json& json) {
  const std::string key = setting.field;
  std::visit(
      [&](auto member) {
        auto& value = options.*member;
        using T = std::remove_reference_t<decltype(value)>;
        if constexpr (std::is_same_v<T, bool>) {
          if (!json.is_boolean()) refuse(key, "true or false");
          value = json.get<bool>();
        } else if constexpr (std::is_integral_v<T>) {
          value = whole_number<T>(key, json);
        } else if constexpr (std::is_same_v<T, float>) {
          if (!json.is_number() || std::fabs(json.get<double>()) > std::numeric_limits<float>::max()) refuse(key, "a number");
          value = json.get<float>();
        } else if constexpr (std::is_same_v<T, std::string>) {
          value = text(key, json);
        } else if constexpr (std::is_same_v<T, std::vector<int32_t>>) {
          value = ids(key, json);
        } else {
          value = texts(key, json);
        }
      },
      setting.member);
}

const Setting* setting_of(const std::string& field) {
  for (const Setting& setting : settings()) {
    if (field == setting.field) return &setting;
  }
  return nullptr;
}

constexpr int kDepth = 4;  // deeper than any request is

Json parsed(const std::string& line) {
  const auto check_depth = [](int depth, Json::parse_event_t, Json&) {
    if (depth > kDepth) fail("lists or objects more than ", kDepth, " deep; see t5g2-run --help for what a line holds");
    return true;
  };
  try {
    return Json::parse(line, check_depth);
  } catch (const Json::parse_error& error) {
    fail("not JSON (at byte ", error.byte, "); give one object a line");
  } catch (const Json::out_of_range&) {
    fail("a number that no computer holds; give a smaller one");
  }
}

// Fills `request` as far as it gets, the id first.
void read(const Json& json, Request& request) {
  if (!json.is_object()) fail("not a JSON object; see t5g2-run --help for what a line holds");
  if (json.contains("id")) {
    if (!json["id"].is_string() && !json["id"].is_number()) refuse("id", "a text or a number");
    request.id = json["id"];
  }
  const bool has_ids = json.contains("ids");
  if (has_ids == json.contains("prompt")) {
    fail(has_ids ? "\"prompt\" and \"ids\"; give one of them" : "no \"prompt\" and no \"ids\"; give one of them");
  }
  request.scores = json.contains("targets");
  for (const auto& [key, value] : json.items()) {
    if (key == "id") continue;
    if (key == "prompt") {
      request.input.text = text(key, value);
    } else if (key == "ids") {
      request.input.ids = ids(key, value);
    } else if (key == "images") {
      request.images = texts(key, value);
    } else if (key == "targets") {
      if (!value.is_array()) refuse(key, "a list of texts or of lists of ids");
      request.targets.assign(value.begin(), value.end());
    } else if (const Setting* setting = setting_of(key)) {
      if (request.scores) fail("\"", key, "\": nothing is generated where there are \"targets\"; leave one of them out");
      set(*setting, request.generation, value);
    } else {
      fail("\"", key, "\": no such field; see t5g2-run --help for what a line holds");
    }
  }
}

// With a float's digits, not a double's. JSON has no infinity: null.
Json number(double value) {
  char text[64];
  std::snprintf(text, sizeof(text), "%.7g", value);
  return std::isfinite(value) ? Json(std::strtod(text, nullptr)) : Json();
}

const char* name(t5g2_finish finish) { return finish == T5G2_FINISH_STOP ? "stop" : "length"; }

void add_scores(const Engine& engine, const Session& session, const Request& request, Json& reply) {
  Json& scores = reply["scores"] = Json::array();
  for (const Json& target : request.targets) {
    if (!target.is_string() && !target.is_array()) refuse("targets", "a list of texts or of lists of ids");
    const std::vector<int32_t> given =
        target.is_string() ? take(engine.target_ids(target.get<std::string>())) : ids("targets", target);
    scores.push_back(number(score(engine, session, given)));
  }
}

Json logprobs_of(const Token& token) {
  Json top = Json::array();
  for (size_t i = 0; i < token.top_ids.size(); ++i) {
    top.push_back({{"id", token.top_ids[i]}, {"logprob", number(double(token.top_logprobs[i]))}});
  }
  return {{"id", token.id}, {"logprob", number(double(token.logprob))}, {"top", top}};
}

void add_answer(const Generation& generation, const Request& request, size_t source_tokens, Json logprobs, Json& reply) {
  const Target best = take(generation.result());
  reply["text"] = best.text;
  reply["ids"] = std::vector<int32_t>(best.ids.begin(), best.ids.end());
  reply["finish"] = name(best.finish);
  reply["source_tokens"] = source_tokens;
  if (request.generation.logprobs >= 0) reply["logprobs"] = std::move(logprobs);
  if (request.generation.beams == 1) return;
  Json& beams = reply["beams"] = Json::array();
  for (size_t i = 0; i < size_t(request.generation.beams); ++i) {
    const auto found = generation.result(i);
    if (!found) break;  // fewer targets than beams
    beams.push_back({{"text", found->text},
                     {"ids", std::vector<int32_t>(found->ids.begin(), found->ids.end())},
                     {"finish", name(found->finish)},
                     {"score", number(found->score)}});
  }
}

void answer(Answerer& answerer, const Options& options, Request& request, Json& reply) {
  request.input.pictures = read_pictures(request.images);
  const Session session = answerer.encode(request.input);
  describe(session, options);
  const size_t source_tokens = take(session.ids()).size();
  if (request.scores) {
    reply["source_tokens"] = source_tokens;
    return add_scores(answerer.engine(), session, request, reply);
  }
  Json logprobs = Json::array();
  const Generation generation = answerer.answer(session, request.generation, [&](const Token& token) {
    if (token.id >= 0 && request.generation.logprobs >= 0) logprobs.push_back(logprobs_of(token));
  });
  describe(generation, options);
  add_answer(generation, request, source_tokens, std::move(logprobs), reply);
}

}  // namespace

int run_jsonl(const Options& options) {
  Lines lines(options.file.value_or("-"));
  Answerer answerer = open_bundle(options);
  bool failed = false;
  while (const auto line = lines.next()) {
    if (line->find_first_not_of(" \t\r") == line->npos) continue;
    Request request;
    request.generation = options.generation;
    Json reply = Json::object();
    const auto refuse_line = [&](const std::string& why) {
      reply = Json::object();
      if (!request.id.is_null()) reply["id"] = request.id;
      reply["error"] = join(lines.where(), ": ", why);
      failed = true;
    };
    try {
      read(parsed(*line), request);
      if (!request.id.is_null()) reply["id"] = request.id;
      answer(answerer, options, request, reply);
    } catch (const Error& error) {
      refuse_line(error.what());
    } catch (const std::bad_alloc&) {
      refuse_line("not enough memory; close other programs, or ask for less");
    }
    print(reply.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
  }
  if (options.stats) print_stats(answerer.engine(), answerer.stats());
  return failed;
}

}  // namespace t5g2::cli
