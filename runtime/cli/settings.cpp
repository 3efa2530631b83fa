#include "settings.h"

#include <cctype>
#include <cstdlib>
#include <limits>
#include <type_traits>

#include "../engine/error.h"

namespace t5g2::cli {
namespace {

using Options = GenerationOptions;

constexpr Setting kSettings[] = {
    {"max_new_tokens", "max-new-tokens", "N", "stop after N tokens; 0: where the bundle's --max-target ends",
     &Options::max_new_tokens},
    {"min_new_tokens", "min-new-tokens", "N", "do not stop before N tokens", &Options::min_new_tokens},
    {"temperature", "temperature", "T", "sample at this temperature; 0: greedy, the likeliest token", &Options::temperature},
    {"top_k", "top-k", "K", "sample from the K likeliest tokens; 0: all", &Options::top_k},
    {"top_p", "top-p", "P", "of those, from the likeliest that together reach probability P; 1: all", &Options::top_p},
    {"min_p", "min-p", "P", "of those, from the ones at least P times as likely as the likeliest; 0: all", &Options::min_p},
    {"repetition_penalty", "repetition-penalty", "X",
     "above 1: tokens that the target already holds become less likely; 1: off", &Options::repetition_penalty},
    {"no_repeat_ngram", "no-repeat-ngram", "N", "no run of N tokens twice in a target; 0: off", &Options::no_repeat_ngram},
    {"seed", "seed", "N", "the same seed samples the same tokens; -1: a new one each time", &Options::seed},
    {"beams", "beams", "N", "above 1: beam search over N beams, 64 at most, greedy only", &Options::beams},
    {"length_penalty", "length-penalty", "X", "of beams: their log-probability is divided by length^X",
     &Options::length_penalty},
    {"early_stopping", "early-stopping", nullptr, "of beams: stop when N targets have ended, not when none can become better",
     &Options::early_stopping},
    {"prefix_text", "prefix", "TEXT", "the target begins with TEXT, which is not printed", &Options::prefix_text},
    {"prefix_ids", "prefix-ids", "IDS", "the same as token ids", &Options::prefix_ids},
    {"stop_strings", "stop", "TEXT", "stop before TEXT; may be repeated", &Options::stop_strings},
    {"stop_ids", "stop-ids", "IDS", "stop at these token ids too", &Options::stop_ids},
    {"suppressed_ids", "suppressed-ids", "IDS", "never choose these token ids", &Options::suppressed_ids},
    {"suppress_unused", "allow-unused", nullptr, "let the model choose the vocabulary's unused and image tokens",
     &Options::suppress_unused},
    {"logprobs", "logprobs", "N", "with --jsonl: log-probability of each token and of the N likeliest, 100 at most; -1: none",
     &Options::logprobs},
};

template <class T>
T number(std::string_view name, const std::string& text) {
  if constexpr (std::is_integral_v<T>) {
    return T(whole_number(name, text, std::numeric_limits<T>::min(), std::numeric_limits<T>::max()));
  } else {
    char* end = nullptr;
    const T value = std::strtof(text.c_str(), &end);
    if (text.empty() || std::isspace(uint8_t(text[0])) || end != text.c_str() + text.size()) {
      misuse(name, " '", text, "': give a number");
    }
    return value;
  }
}

}  // namespace

std::span<const Setting> settings() { return kSettings; }

const Setting* find_setting(std::string_view option) {
  for (const Setting& setting : kSettings) {
    if (option == setting.option) return &setting;
  }
  return nullptr;
}

void set(const Setting& setting, GenerationOptions& options, std::string_view name, const std::string& text) {
  std::visit(
      [&](auto member) {
        auto& value = options.*member;
        using T = std::remove_reference_t<decltype(value)>;
        if constexpr (std::is_same_v<T, bool>) {
          if (text != "on" && text != "off") misuse(name, " '", text, "': give on or off");
          set_flag(setting, options, text == "on");
        } else if constexpr (std::is_arithmetic_v<T>) {
          value = number<T>(name, text);
        } else if constexpr (std::is_same_v<T, std::string>) {
          value = text;
        } else if constexpr (std::is_same_v<T, std::vector<int32_t>>) {
          value = ids_of(name, text);
        } else {
          value.push_back(text);
        }
      },
      setting.member);
}

void set_flag(const Setting& setting, GenerationOptions& options, bool on) {
  const auto member = std::get<bool GenerationOptions::*>(setting.member);
  options.*member = GenerationOptions().*member != on;
}

std::string shown(const Setting& setting, const GenerationOptions& options) {
  return std::visit(
      [&](auto member) -> std::string {
        const auto& value = options.*member;
        using T = std::remove_cvref_t<decltype(value)>;
        if constexpr (std::is_same_v<T, bool>) {
          return value == GenerationOptions().*member ? "off" : "on";
        } else if constexpr (std::is_arithmetic_v<T>) {
          return join(value);
        } else if constexpr (std::is_same_v<T, std::string>) {
          return value.empty() ? "" : join("'", value, "'");
        } else {
          std::string list;
          for (const auto& element : value) {
            list += list.empty() ? "" : " ";
            list += std::is_same_v<T, std::vector<int32_t>> ? join(element) : join("'", element, "'");
          }
          return list;
        }
      },
      setting.member);
}

}  // namespace t5g2::cli
