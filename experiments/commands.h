#pragma once

#include <string>
#include <vector>

#include "core/error.h"

// The subcommands of `tq`. Each takes the arguments after its name, writes results to stdout and everything
// else to stderr, and throws a tq::Error for main() to report.
namespace tq {

using Arguments = std::vector<std::string>;

ExitCode run_bench(const Arguments& arguments);
ExitCode run_calibrate(const Arguments& arguments);
ExitCode run_codebook(const Arguments& arguments);
ExitCode run_compare(const Arguments& arguments);
ExitCode run_demo(const Arguments& arguments);
ExitCode run_eval(const Arguments& arguments);
ExitCode run_export(const Arguments& arguments);
ExitCode run_import(const Arguments& arguments);
ExitCode run_inspect(const Arguments& arguments);
ExitCode run_jit(const Arguments& arguments);
ExitCode run_lint(const Arguments& arguments);
ExitCode run_merge(const Arguments& arguments);
ExitCode run_plot(const Arguments& arguments);
ExitCode run_ppl(const Arguments& arguments);
ExitCode run_report(const Arguments& arguments);
ExitCode run_retrieval(const Arguments& arguments);
ExitCode run_schedule(const Arguments& arguments);
ExitCode run_sensitivity(const Arguments& arguments);
ExitCode run_sweep(const Arguments& arguments);
ExitCode run_tune(const Arguments& arguments);

struct Command {
  const char* name;
  const char* summary;
  ExitCode (*run)(const Arguments&);
  bool shares_work = false;  // between the processes of an mpirun
};

// In the order in which they are usually needed.
const std::vector<Command>& commands();

}  // namespace tq
