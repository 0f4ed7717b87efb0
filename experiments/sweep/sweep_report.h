#pragma once

#include <string>
#include <vector>

#include "experiments/sweep/averaged_rows.h"
#include "experiments/sweep/published_figures.h"

namespace tq {

// A sweep's results as Markdown, in sections.

// The results of one input, of codecs for both sides of the cache or for one of them; of fused attention and
// the like all of one measure.
struct ReportGroup {
  std::string name;
  std::vector<AveragedRow> rows;
  // The metric of the Pareto front, and the rows that have it and bytes; "" and none where there is no front.
  std::string front_metric;
  std::vector<AveragedRow> front_candidates;
};
// `rows`: those of a folder.
std::vector<ReportGroup> report_groups(const std::vector<ResultRow>& rows);

// Adds to the rows what FOLDER/timings.jsonl says of the codecs' speeds, in million vectors a second. Other
// lines, and fields of other versions, are left out.
void add_speeds(const std::string& folder, std::vector<ResultRow>& rows);

// What FOLDER/manifest.json says of program, machine, runs and inputs, whose paths are left out. Throws
// InputError when it is no manifest of a sweep.
std::string manifest_section(const std::string& folder);

// The Pareto front, the plots (names of files beside the report), all rows.
std::string group_section(const ReportGroup& group, const std::vector<std::string>& plots);

// Ours beside what was published.
std::string published_section(const std::vector<ComparedFigure>& figures);

}  // namespace tq
