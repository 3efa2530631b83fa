#include "report.h"

#include <cmath>
#include <cstdio>
#include <set>
#include <vector>

#include "runtime/engine/error.h"

namespace t5g2::bench {
namespace {

using Row = std::vector<std::string>;

std::string number(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof(text), "%.*f", digits, value);
  return text;
}

// Three significant digits, none after the point from 100 on.
int digits_for(double value) { return value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2; }

// Median ± half the range between the quartiles.
std::string spread(const Json& figure, double unit = 1) {
  const double middle = double(figure["median"]) * unit, half = (double(figure["high"]) - double(figure["low"])) * unit / 2;
  return join(number(middle, digits_for(middle)), " ± ", number(half, digits_for(middle)));
}

std::string ms(const Json& seconds) { return seconds.is_null() ? "–" : number(double(seconds) * 1e3, 1); }

std::string table(const std::vector<Row>& rows) {
  std::string out;
  for (size_t i = 0; i < rows.size(); ++i) {
    out += "|";
    for (const std::string& cell : rows[i]) out += join(" ", cell, " |");
    out += "\n";
    if (i) continue;
    out += "|";
    for (size_t c = 0; c < rows[i].size(); ++c) out += c < 2 ? "---|" : "--:|";
    out += "\n";
  }
  return out;
}

std::string decode_cell(const Json& decode) {
  std::string cell = spread(decode["tok_s"]);
  if (decode.contains("bandwidth_share")) cell += join(" (", number(double(decode["bandwidth_share"]) * 100, 0), " %)");
  return cell;
}

// Depths of all results: their columns.
std::set<int64_t> depths(const Json& results) {
  std::set<int64_t> found;
  for (const Json& result : results) {
    for (const Json& decode : result["decode"]) found.insert(decode["depth"].get<int64_t>());
  }
  return found;
}

std::string speed_table(const Json& results) {
  bool pictures = false, energy = false;
  for (const Json& result : results) {
    pictures |= result.contains("picture_s");
    energy |= !result["energy_source"].is_null();
  }
  const auto columns = depths(results);
  Row head = {"bundle", "quantization", "threads", "source", "encode tok/s"};
  for (const int64_t depth : columns) head.push_back(join("decode tok/s at ", depth, " (% of bandwidth)"));
  head.insert(head.end(), {"MB a token", "read GB/s", "first token ms"});
  if (pictures) head.push_back("picture s");
  if (energy) head.push_back("mJ a decoded token");
  head.insert(head.end(), {"resident MB", "peak MB"});

  std::vector<Row> rows = {head};
  for (const Json& result : results) {
    Row row = {result["bundle"], result["quantization"], join(result["threads"].get<int>()), join(result["source"].get<int>()),
               spread(result["encode_tok_s"])};
    for (const int64_t depth : columns) {
      std::string cell = "–";
      for (const Json& decode : result["decode"]) {
        if (decode["depth"] == depth) cell = decode_cell(decode);
      }
      row.push_back(cell);
    }
    const Json last = result["decode"].empty() ? Json::object() : result["decode"].back();
    row.push_back(last.contains("bytes_per_token") ? number(double(last["bytes_per_token"]) / 1e6, 1) : "–");
    row.push_back(number(result["read_gb_s"], 1));
    row.push_back(spread(result["first_token_s"], 1e3));
    if (pictures) row.push_back(result.contains("picture_s") ? number(result["picture_s"], 2) : "–");
    if (energy) {
      const Json joules = last.value("joules_per_token", Json());
      row.push_back(joules.is_null() ? "–" : number(double(joules) * 1e3, 1));
    }
    row.push_back(number(result["resident_mb"], 0));
    row.push_back(number(result["peak_mb"], 0));
    rows.push_back(row);
  }
  return table(rows);
}

std::string loading_table(const Json& loading) {
  std::vector<Row> rows = {{"bundle", "kernels", "file MB", "threads", "load warm ms", "load cold ms", "cold first token ms"}};
  for (const Json& row : loading) {
    rows.push_back({row["bundle"], row["kernels"], number(row["file_mb"], 1), join(row["threads"].get<int>()),
                    ms(row["load_warm_s"]), ms(row["load_cold_s"]), ms(row["first_token_cold_s"])});
  }
  return table(rows);
}

std::string profile_table(const std::string& program, const Json& operators) {
  double whole = 0;
  for (const Json& row : operators) whole += double(row["ms"]);
  std::vector<Row> rows = {{"operator", "calls", "ms", "share"}};
  for (const Json& row : operators) {
    const double share = double(row["ms"]) / whole;
    if (share < 0.001) continue;
    rows.push_back({row["operator"], number(row["calls"], 0), number(row["ms"], 3), join(number(share * 100, 1), " %")});
  }
  return join("\n", program, ", one run, ", number(whole, 2), " ms:\n\n", table(rows));
}

}  // namespace

std::string markdown(const Json& report) {
  const Json& machine = report["machine"];
  std::string out = speed_table(report["results"]) + "\n" + loading_table(report["loading"]);
  if (report.contains("profile")) {
    for (const auto& [program, operators] : report["profile"].items()) out += profile_table(program, operators);
  }
  out += join("\n", machine["cpu"].get<std::string>(), ", ", machine["cores"].get<int>(), " cores, ",
              machine.value("system", ""), "; t5g2 ", report["version"].get<std::string>(), ", ",
              report["date"].get<std::string>(), ". Median ± half the range between the quartiles of ",
              report["repeat"].get<int>(), " runs; ", report["target"].get<int>(),
              " tokens a decoding run.\nCommand: `", report["command"].get<std::string>(), "`\n");
  for (const Json& result : report["results"]) {
    if (result["throttling"] == "none") continue;
    out += join("Throttled: ", result["bundle"].get<std::string>(), ", ", result["threads"].get<int>(), " threads, source ",
                result["source"].get<int>(), ": ", result["throttling"].get<std::string>(), "; measure again when it is cool.\n");
  }
  return out;
}

std::string csv(const Json& report) {
  std::string out = "bundle,quantization,kernels,threads,source,images,figure,depth,median,low,high\n";
  const auto quoted = [](const std::string& text) {
    if (text.find_first_of(",\"\n\r") == text.npos) return text;
    std::string safe = "\"";
    for (const char c : text) safe += c == '"' ? "\"\"" : std::string(1, c);
    return safe + "\"";
  };
  const auto line = [&](const Json& of, const char* name, const std::string& depth, const Json& value) {
    if (value.is_null()) return;
    const bool runs = value.is_object();
    const auto number = [&](const char* key) { return join(runs ? value[key].dump() : value.dump()); };
    out += join(quoted(of["bundle"]), ',', quoted(of["quantization"]), ',', of["kernels"].get<std::string>(), ',',
                of["threads"].get<int>(), ',', of.contains("source") ? of["source"].dump() : "", ',',
                of.contains("images") ? of["images"].dump() : "", ',', name, ',', depth, ',', number("median"), ',',
                number("low"), ',', number("high"), '\n');
  };
  for (const Json& result : report["results"]) {
    for (const char* name : {"encode_tok_s", "first_token_s", "picture_s", "encode_joules_per_token", "loaded_mb", "resident_mb",
                             "peak_mb", "read_gb_s"}) {
      line(result, name, "", result.value(name, Json()));
    }
    for (const Json& decode : result["decode"]) {
      const std::string depth = decode["depth"].dump();
      line(result, "decode_tok_s", depth, decode["tok_s"]);
      for (const char* name : {"bytes_per_token", "bandwidth_share", "joules_per_token"}) {
        line(result, name, depth, decode.value(name, Json()));
      }
    }
  }
  for (const Json& row : report["loading"]) {
    for (const char* name : {"load_warm_s", "load_cold_s", "first_token_cold_s", "file_mb"}) {
      line(row, name, "", row.value(name, Json()));
    }
  }
  return out;
}

}  // namespace t5g2::bench
