#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "experiments/sweep/averaged_rows.h"

namespace tq {

// A figure that somebody published for a configuration that a sweep measures.
struct PublishedFigure {
  // Axes and their values, null for an axis that the configuration does not have; enough of them to name one.
  nlohmann::ordered_json where;
  std::string metric;  // as in result lines, also bytes_per_token and its like
  double value;
  double allowed;  // how far ours may be off
  std::string source;
  std::string note;  // why ours is another; may be empty
};

// A JSON array of objects: "where", "metric", "value", "tolerance" (absolute) or "relative_tolerance",
// "source" and, where the figure does not reproduce or needs a word, "note". Throws UsageError when the file
// cannot be read, InputError for anything else in it.
std::vector<PublishedFigure> read_published_figures(const std::string& path);

enum class PublishedVerdict { within, differs_as_noted, differs, not_measured };
const char* to_string(PublishedVerdict verdict);

struct ComparedFigure {
  PublishedFigure figure;
  std::optional<Estimate> ours;
  PublishedVerdict verdict;
};

// Throws InputError when a figure is of several of the rows, or when no figure is of any. `path`: of the
// figures, for messages.
std::vector<ComparedFigure> compare_with_published(const std::string& path,
                                                   const std::vector<PublishedFigure>& figures,
                                                   const std::vector<AveragedRow>& rows);

// "d=128 value-bits=2".
std::string describe_where(const PublishedFigure& figure);

}  // namespace tq
