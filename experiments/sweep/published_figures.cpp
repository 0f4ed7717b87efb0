#include "experiments/sweep/published_figures.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>

#include "core/error.h"
#include "experiments/nearest_name.h"
#include "experiments/sweep/axes.h"

namespace tq {
namespace {

using Json = nlohmann::ordered_json;

class FigureReader {
 public:
  FigureReader(std::string place, const Json& entry) : place_(std::move(place)), entry_(entry) {
    if (!entry.is_object()) throw InputError("{} is no object", place_);
    static const std::vector<std::string> names{
        "where", "metric", "value", "tolerance", "relative_tolerance", "source", "note"};
    for (const auto& [name, value] : entry.items()) {
      if (std::find(names.begin(), names.end(), name) == names.end()) {
        throw InputError("{}: '{}' is unknown; did you mean '{}'?", place_, name, nearest_name(name, names));
      }
    }
  }

  PublishedFigure figure() const {
    PublishedFigure figure;
    figure.where = where();
    figure.metric = text("metric");
    figure.value = number("value");
    if (entry_.contains("tolerance") == entry_.contains("relative_tolerance")) {
      throw InputError("{}: needs either 'tolerance' or 'relative_tolerance'", place_);
    }
    const bool relative = entry_.contains("relative_tolerance");
    figure.allowed = relative ? number("relative_tolerance") * std::fabs(figure.value) : number("tolerance");
    if (figure.allowed < 0) throw InputError("{}: the tolerance is negative", place_);
    figure.source = text("source");
    if (entry_.contains("note")) figure.note = text("note");
    return figure;
  }

 private:
  Json where() const {
    if (!entry_.contains("where") || !entry_["where"].is_object() || entry_["where"].empty()) {
      throw InputError("{}: 'where' is no object of axes and values", place_);
    }
    for (const auto& [axis, value] : entry_["where"].items()) {
      try {
        axis_named(axis);
      } catch (const UsageError& error) {
        throw InputError("{}: {}", place_, error.what());
      }
      if (!value.is_string() && !value.is_number() && !value.is_null()) {
        throw InputError("{}: '{}' is neither text nor number nor null", place_, axis);
      }
    }
    return entry_["where"];
  }

  std::string text(const char* name) const {
    if (!entry_.contains(name) || !entry_[name].is_string() || entry_[name].get<std::string>().empty()) {
      throw InputError("{}: '{}' is no text", place_, name);
    }
    return entry_[name].get<std::string>();
  }

  double number(const char* name) const {
    if (!entry_.contains(name) || !entry_[name].is_number() || !std::isfinite(entry_[name].get<double>())) {
      throw InputError("{}: '{}' is no number", place_, name);
    }
    return entry_[name].get<double>();
  }

  std::string place_;
  const Json& entry_;
};

// As ResultRow::axis() has it.
std::string text_of(const Json& value) {
  if (value.is_null()) return "";
  return value.is_string() ? value.get<std::string>() : value.dump();
}

std::vector<const AveragedRow*> rows_of(const PublishedFigure& figure, const std::vector<AveragedRow>& rows) {
  std::vector<const AveragedRow*> matching;
  for (const AveragedRow& row : rows) {
    const auto& items = figure.where.items();
    const bool matches = std::all_of(items.begin(), items.end(), [&](const auto& item) {
      return row.row.axis(item.key()) == text_of(item.value());
    });
    if (matches) matching.push_back(&row);
  }
  return matching;
}

std::string varying_names(const std::vector<const AveragedRow*>& rows) {
  std::vector<const ResultRow*> pointers;
  for (const AveragedRow* row : rows) pointers.push_back(&row->row);
  std::string names;
  for (const std::string& axis : varying_axes(pointers)) names += (names.empty() ? "" : ", ") + axis;
  return names;
}

PublishedVerdict verdict(const PublishedFigure& figure, const std::optional<Estimate>& ours) {
  if (!ours) return PublishedVerdict::not_measured;
  // Decimal figures are not exact in binary.
  const double rounding = 1e-12 * std::fabs(figure.value);
  if (std::fabs(ours->mean - figure.value) <= figure.allowed + rounding) return PublishedVerdict::within;
  return figure.note.empty() ? PublishedVerdict::differs : PublishedVerdict::differs_as_noted;
}

}  // namespace

std::vector<PublishedFigure> read_published_figures(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw UsageError("{}: cannot be read", path);
  Json json;
  try {
    json = Json::parse(file);
  } catch (const Json::exception&) {
    throw InputError("{}: is no JSON", path);
  }
  if (!json.is_array() || json.empty()) throw InputError("{}: is no array of figures", path);
  std::vector<PublishedFigure> figures;
  for (const Json& entry : json) {
    figures.push_back(FigureReader(fmt::format("{}: figure {}", path, figures.size() + 1), entry).figure());
  }
  return figures;
}

const char* to_string(PublishedVerdict verdict) {
  switch (verdict) {
    case PublishedVerdict::within:
      return "within";
    case PublishedVerdict::differs_as_noted:
      return "differs, see note";
    case PublishedVerdict::differs:
      return "**differs**";
    case PublishedVerdict::not_measured:
      return "**not measured**";
  }
  return "";
}

std::vector<ComparedFigure> compare_with_published(const std::string& path,
                                                   const std::vector<PublishedFigure>& figures,
                                                   const std::vector<AveragedRow>& rows) {
  std::vector<ComparedFigure> compared;
  bool any = false;
  for (const PublishedFigure& figure : figures) {
    const std::vector<const AveragedRow*> matching = rows_of(figure, rows);
    if (matching.size() > 1) {
      throw InputError("{}: figure {} ({}) is of {} configurations there; name one of its {} too", path,
                       compared.size() + 1, describe_where(figure), matching.size(), varying_names(matching));
    }
    any = any || !matching.empty();
    std::optional<Estimate> ours;
    if (!matching.empty()) {
      const ResultValues& values = matching.front()->row.values;
      if (const auto value = values.find(figure.metric); value != values.end()) ours = value->second;
    }
    compared.push_back({figure, ours, verdict(figure, ours)});
  }
  if (!any) throw InputError("{}: no figure is of a configuration that was measured there", path);
  return compared;
}

std::string describe_where(const PublishedFigure& figure) {
  std::string text;
  for (const auto& [axis, value] : figure.where.items()) {
    if (!value.is_null()) text += fmt::format("{}{}={}", text.empty() ? "" : " ", axis, text_of(value));
  }
  return text;
}

}  // namespace tq
