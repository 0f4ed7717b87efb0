#pragma once

#include <string>

#include "calibration/process_group.h"
#include "core/error.h"

// The processes that an mpirun or srun started together with this one. processes_mpi.cpp is built where MPI
// is to be had, processes_alone.cpp elsewhere; started by itself, the program of either is one process.
namespace tq {

// First in main(), before any thread. Divides the cores of a machine between its processes, and silences
// all processes but the first: theirs are the results. Throws UsageError where there are several processes
// and this program was built without MPI, SystemError where MPI cannot serve several threads.
void join_processes();
// Last in main(), after success: waits for the others.
void leave_processes();

const ProcessGroup& all_processes();
// This process's number among those of its machine, from 0.
int local_rank();

// One message to, or the next from, another process. Messages of one channel (0 to 32767) keep their order;
// threads that use channels of their own may wait side by side. Waiting does not spin.
void send(int rank, int channel, const std::string& bytes);
std::string receive(int rank, int channel);

// Prints "tq: MESSAGE", once however many processes fail, and ends all of them with `code`. Returns only
// where there is one process: its main() prints and returns.
void fail_processes(ExitCode code, const std::string& message);

}  // namespace tq
