// store_tuning FILE NAME COUNT: stores COUNT choices under NAME as `tq tune` does after each problem, without
// a GPU.

#include <cstdio>
#include <cstdlib>
#include <string>

#include "core/error.h"
#include "experiments/tune/stored_choices.h"

int main(int count, char** arguments) try {
  if (count != 4) return 2;
  const tq::TuningScope scope{"a device", "9.0", 13000, "an NVRTC", "sources"};
  for (int i = 0; i < std::atoi(arguments[3]); ++i) {
    tq::Tuning found;
    found.set({std::string(arguments[2]) + std::to_string(i), i, i}, {4, 1, i});
    tq::tune::store_choices(arguments[1], scope, found);
  }
  return 0;
} catch (const tq::SystemError& error) {
  std::fprintf(stderr, "store_tuning: %s\n", error.what());
  return 4;
}
