#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <string_view>

namespace tq {

// A child process that may compute, read one file, and answer over a socket: for a library that a hostile
// file may take over. It is forked, so its parent's memory is there to read; what it may no longer do is open
// a file for writing or more than one for reading, reach a network, start a process or a program (seccomp),
// take more than 1 GiB beyond what the parent had, or 5 s of processor time for one message (resource
// limits). All of the parent's files but the standard ones, which become /dev/null, are closed in it.
//
// The parent may have threads, but none may be inside HDF5 or hold a lock that `answer` takes.
class ConfinedProcess {
 public:
  // The child answers every message by answer(message), which must not throw. Throws SystemError where the
  // system lacks what confines it.
  using Answer = std::function<std::string(const std::string&)>;
  explicit ConfinedProcess(const Answer& answer);
  ~ConfinedProcess();
  ConfinedProcess(const ConfinedProcess&) = delete;
  ConfinedProcess& operator=(const ConfinedProcess&) = delete;

  // Throws InputError, beginning with `file`, where the child died of it.
  std::string ask(const std::string& message, std::string_view file);

 private:
  // Waits for the child, once; how it ended.
  std::string wait();

  pid_t child_ = -1;
  int socket_ = -1;
};

}  // namespace tq
