#include "experiments/trust_option.h"

namespace tq {

void add_trust_option(CommandLine& line) {
  line.add()("trust-files", boost::program_options::bool_switch(),
             "read captures and artefacts (HDF5) in this process, not in one that is confined");
}

Trust read_trust(const CommandLine& line) {
  return line.get<bool>("trust-files") ? Trust::full : Trust::none;
}

}  // namespace tq
