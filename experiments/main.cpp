#include <fmt/format.h>
#include <malloc.h>
#include <signal.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cstdio>
#include <new>
#include <string>
#include <string_view>

#include "datasets/atomic_file.h"
#include "experiments/commands.h"
#include "experiments/host_machine.h"
#include "experiments/processes.h"
#include "experiments/version.h"

namespace tq {

const std::vector<Command>& commands() {
  static const std::vector<Command> list{
      {"demo", "run the main job on the embedded sample, end to end", run_demo},
      {"inspect", "say what a capture holds, and check it", run_inspect},
      {"calibrate", "fit per-layer tables and alpha to a capture, judge them on held-out tokens",
       run_calibrate, true},
      {"merge", "put together what runs with --shard wrote", run_merge},
      {"eval", "measure what a codec or an artefact does to a capture", run_eval},
      {"ppl", "measure what a codec or an artefact does to a model's loss on a text", run_ppl},
      {"retrieval", "measure how often a model copies a value from far back under a codec", run_retrieval},
      {"sensitivity", "quantise one layer's keys or values at a time and rank them by harm", run_sensitivity},
      {"schedule", "choose codecs by layer for the least harm under a byte budget", run_schedule},
      {"sweep", "measure every configuration of an INI file; goes on after a kill", run_sweep, true},
      {"compare", "say which results of a sweep or a bench differ from another's beyond their uncertainty",
       run_compare},
      {"plot", "draw a sweep (the Pareto front, layer by layer, curves of alpha) or a bench's attention",
       run_plot},
      {"report", "write a sweep's results as Markdown, beside published figures", run_report},
      {"export", "write an artefact in the format of an inference engine", run_export},
      {"import", "turn an export back into an artefact", run_import},
      {"lint", "check tables against the optimum of their (d, b)", run_lint},
      {"jit", "compile the GPU kernels, look at them, look after their cache", run_jit},
      {"tune", "find the fastest blocks of the attention and score kernels on this GPU", run_tune},
      {"bench", "time the GPU kernels, each result checked first", run_bench},
      {"codebook", "print the data-free Lloyd-Max table of a (d, b)", run_codebook},
  };
  return list;
}

namespace {

void print_help() {
  fmt::print(
      "tq: TurboQuant KV-cache compression, from captured keys and values to deployable codebooks\n\n"
      "usage: tq COMMAND [options]      tq COMMAND --help\n\n");
  for (const Command& command : commands()) fmt::print("  {:<11} {}\n", command.name, command.summary);
  fmt::print(
      "\nEvery option can also come from the environment (TQ_KEY_BITS=4) or from a section of an INI file\n"
      "(--config FILE); the command line wins over the environment, which wins over the file.\n"
      "Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 a check did not hold, 2 "
      "usage,\n"
      "3 bad input, 4 the machine (disk, memory), 130 interrupted.\n\n"
      "example: tq demo\n");
}

void print_version() {
  fmt::print("tq {} ({}, {} build), inner loops for {}\n", kVersion, kRevision, kBuildType, simd_target());
}

// Nothing half-written stays behind: the temporaries go, targets were never touched.
extern "C" void interrupted(int) {
  remove_temporaries_on_signal();
  _exit(static_cast<int>(ExitCode::interrupted));
}

void catch_interrupts() {
  struct sigaction action = {};
  action.sa_handler = interrupted;
  sigemptyset(&action.sa_mask);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaction(signal, &action, nullptr);
}

int fail(ExitCode code, const std::string& message) {
  fail_processes(code, message);
  fmt::print(stderr, "tq: {}\n", message);
  return static_cast<int>(code);
}

int run(int argc, char** argv) {
  const std::string_view name = argc > 1 ? argv[1] : "--help";
  if (name == "--help" || name == "-h" || name == "help") {
    print_help();
    return static_cast<int>(argc > 1 ? ExitCode::done : ExitCode::usage);
  }
  if (name == "--version") {
    print_version();
    return static_cast<int>(ExitCode::done);
  }
  for (const Command& command : commands()) {
    if (name != command.name) continue;
    if (!command.shares_work && all_processes().size() > 1) {
      throw UsageError("tq {} is one process; tq calibrate and tq sweep share their work among several",
                       name);
    }
    return static_cast<int>(command.run(Arguments(argv + 2, argv + argc)));
  }
  throw UsageError("there is no command '{}'; see tq --help", name);
}

}  // namespace
}  // namespace tq

int main(int argc, char** argv) {
  // Blocks of a few megabytes come and go with every step; giving them back to the system each time costs
  // page faults.
  mallopt(M_MMAP_THRESHOLD, 64 << 20);
  mallopt(M_TRIM_THRESHOLD, 256 << 20);
  spdlog::set_default_logger(spdlog::stderr_color_st("tq"));
  spdlog::set_pattern("tq: %v");
  tq::catch_interrupts();
  int code;
  try {
    tq::join_processes();
    code = tq::run(argc, argv);
  } catch (const tq::Error& error) {
    code = tq::fail(error.exit_code(), error.what());
  } catch (const std::bad_alloc&) {
    code = tq::fail(tq::ExitCode::system, "out of memory");
  } catch (const std::exception& error) {
    code = tq::fail(tq::ExitCode::system, fmt::format("internal error: {}; please report it", error.what()));
  }
  // A full disk under a redirected stdout shows only here.
  if (std::fflush(stdout) != 0 && code == 0) {
    code = tq::fail(tq::ExitCode::system, "stdout: cannot write the result");
  }
  tq::leave_processes();
  return code;
}
