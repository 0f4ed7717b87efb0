#include "datasets/confined_process.h"

#include <fcntl.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <initializer_list>
#include <memory>
#include <utility>

#include "core/error.h"

namespace tq {
namespace {

constexpr rlim_t kMoreMemory = rlim_t{1} << 30;
constexpr rlim_t kSecondsAMessage = 5;
constexpr int kSocket = 3;                                    // in the child
constexpr std::uint32_t kMostBytes = std::uint32_t{1} << 27;  // of a message; a reader's lists have fewer

bool send_bytes(int socket, const char* at, std::size_t size) {
  while (size > 0) {
    const ssize_t sent = ::send(socket, at, size, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return false;
    at += sent;
    size -= static_cast<std::size_t>(sent);
  }
  return true;
}

// What is waited for then runs on the processor of the one that waits.
bool has_one_processor() {
  static const bool one = sysconf(_SC_NPROCESSORS_ONLN) == 1;
  return one;
}

// A process that sleeps takes some 40 us to wake, while most answers take less than that to make: so both
// sides look for a while before they sleep.
void await_bytes(int socket) {
  constexpr auto kLongest = std::chrono::microseconds(50);
  if (has_one_processor()) return;
  const auto end = std::chrono::steady_clock::now() + kLongest;
  char next = 0;
  while (recv(socket, &next, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && std::chrono::steady_clock::now() < end) {
  }
}

bool receive_bytes(int socket, void* data, std::size_t size) {
  for (char* at = static_cast<char*>(data); size > 0;) {
    const ssize_t got = recv(socket, at, size, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    at += got;
    size -= static_cast<std::size_t>(got);
  }
  return true;
}

// In one piece, which wakes the other side once.
bool send_message(int socket, const std::string& message) {
  const std::uint32_t size = static_cast<std::uint32_t>(message.size());
  std::string bytes(reinterpret_cast<const char*>(&size), sizeof size);
  bytes += message;
  return send_bytes(socket, bytes.data(), bytes.size());
}

// False where the other side is gone.
bool receive_message(int socket, std::string& message) {
  await_bytes(socket);
  std::uint32_t size = 0;
  if (!receive_bytes(socket, &size, sizeof size)) return false;
  if (size > kMostBytes) throw InputError("a message of {} bytes between processes", size);
  message.resize(size);
  return receive_bytes(socket, message.data(), size);
}

[[noreturn]] void fail(const char* what) {
  throw SystemError(
      "a process to read files in cannot be confined: {}: {}; for files of your own: --trust-files", what,
      std::strerror(errno));
}

void limit(__rlimit_resource resource, rlim_t most) {
  const rlimit both{most, most};
  if (setrlimit(resource, &both) != 0) fail("setrlimit");
}

// Bytes that are mapped now: sanitizers map more than any limit.
rlim_t mapped_bytes() {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen("/proc/self/statm", "r"),
                                                             std::fclose);
  unsigned long pages = 0;
  if (!file || std::fscanf(file.get(), "%lu", &pages) != 1) fail("/proc/self/statm");
  return static_cast<rlim_t>(pages) * static_cast<rlim_t>(sysconf(_SC_PAGESIZE));
}

// Nothing of the parent's but the socket: not its files, its standard streams, or its handlers of signals.
void let_go(int socket) {
  for (int number = 1; number < SIGRTMIN; ++number) signal(number, SIG_DFL);
  // An interrupt from the terminal is the parent's to answer; the child ends with it.
  signal(SIGINT, SIG_IGN);
  const int sink = open("/dev/null", O_RDWR);
  if (sink < 0) fail("/dev/null");
  const int source = dup(socket);  // above the places that are filled next
  if (source < 0) fail("dup");
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) dup2(sink, stream);
  if (dup2(source, kSocket) < 0) fail("dup2");
  closefrom(kSocket + 1);
}

// System calls by name and, where that matters, by arguments. What is not listed fails with EPERM.
// sigaltstack: AddressSanitizer, when an exception is thrown.
void filter_system_calls() {
  const std::unique_ptr<void, void (*)(void*)> filter(seccomp_init(SCMP_ACT_ERRNO(EPERM)), seccomp_release);
  if (!filter) fail("seccomp_init");
  const auto allow = [&](int call, std::initializer_list<scmp_arg_cmp> arguments = {},
                         std::uint32_t action = SCMP_ACT_ALLOW) {
    const int code = seccomp_rule_add_array(filter.get(), action, call,
                                            static_cast<unsigned>(arguments.size()), arguments.begin());
    if (code != 0) {
      errno = -code;
      fail("seccomp_rule_add");
    }
  };
  for (const int call :
       {SCMP_SYS(pread64), SCMP_SYS(lseek), SCMP_SYS(fstat), SCMP_SYS(newfstatat), SCMP_SYS(flock),
        SCMP_SYS(getcwd), SCMP_SYS(readlink), SCMP_SYS(brk), SCMP_SYS(munmap), SCMP_SYS(mremap),
        SCMP_SYS(madvise), SCMP_SYS(futex), SCMP_SYS(clock_gettime), SCMP_SYS(exit_group),
        SCMP_SYS(rt_sigreturn), SCMP_SYS(sigaltstack)}) {
    allow(call);
  }
  // By the argument's place; libseccomp's macros for this are C.
  const auto is = [](unsigned argument, scmp_datum_t value) {
    return scmp_arg_cmp{argument, SCMP_CMP_EQ, value, 0};
  };
  const auto has_none_of = [](unsigned argument, scmp_datum_t bits) {
    return scmp_arg_cmp{argument, SCMP_CMP_MASKED_EQ, bits, 0};
  };
  for (const int call : {SCMP_SYS(mmap), SCMP_SYS(mprotect)}) allow(call, {has_none_of(2, PROT_EXEC)});
  allow(SCMP_SYS(recvfrom), {is(0, kSocket)});
  allow(SCMP_SYS(sendto), {is(0, kSocket), is(4, 0)});  // no address
  allow(SCMP_SYS(prlimit64), {is(0, 0), is(1, RLIMIT_CPU)});
  // One more file may be open (RLIMIT_NOFILE), and none is ever closed: the first is the only one.
  static_assert(O_RDONLY == 0);
  allow(SCMP_SYS(openat), {has_none_of(2, O_ACCMODE | O_CREAT | O_TRUNC | O_APPEND)});
  allow(SCMP_SYS(close), {}, SCMP_ACT_ERRNO(0));
  if (const int code = seccomp_load(filter.get()); code != 0) {
    errno = -code;
    fail("seccomp");
  }
}

void confine() {
  limit(RLIMIT_AS, mapped_bytes() + kMoreMemory);
  limit(RLIMIT_NOFILE, kSocket + 2);
  prctl(PR_SET_DUMPABLE, 0);  // no core, also where cores go through a pipe, which no limit stops
  filter_system_calls();
}

// From now on, of processor time; the hard limit stays.
void limit_next_message(rlim_t hard) {
  timespec used{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  const rlimit seconds{std::min(static_cast<rlim_t>(used.tv_sec) + 1 + kSecondsAMessage, hard), hard};
  setrlimit(RLIMIT_CPU, &seconds);
}

[[noreturn]] void run_child(int socket, const ConfinedProcess::Answer& answer) {
  std::string message;
  try {
    let_go(socket);
    confine();
  } catch (const SystemError& error) {
    message = error.what();
  }
  rlimit seconds{};
  getrlimit(RLIMIT_CPU, &seconds);
  // Once it is confined it says so, by an empty message.
  bool served = send_message(kSocket, message) && message.empty();
  while (served && receive_message(kSocket, message)) {
    limit_next_message(seconds.rlim_max);
    served = send_message(kSocket, answer(message));
  }
  _exit(0);
}

}  // namespace

ConfinedProcess::ConfinedProcess(const Answer& answer) {
  has_one_processor();  // looking reads a file, which the child may not
  int sockets[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0) fail("socketpair");
  child_ = fork();
  if (child_ == 0) run_child(sockets[1], answer);
  const int error = errno;
  close(sockets[1]);
  socket_ = sockets[0];
  std::string fault;
  if (child_ > 0 && receive_message(socket_, fault) && fault.empty()) return;
  close(socket_);
  errno = error;
  if (child_ < 0) fail("fork");
  const std::string how = wait();
  throw SystemError("{}", fault.empty() ? "the process that reads files " + how : fault);
}

ConfinedProcess::~ConfinedProcess() {
  close(socket_);
  if (child_ > 0) kill(child_, SIGKILL);
  wait();
}

std::string ConfinedProcess::ask(const std::string& message, std::string_view file) {
  std::string answer;
  if (!send_message(socket_, message) || !receive_message(socket_, answer)) {
    throw InputError("{}: the HDF5 library {} while it read the file, which is damaged or made to do harm",
                     file, wait());
  }
  return answer;
}

std::string ConfinedProcess::wait() {
  int status = 0;
  if (child_ <= 0 || waitpid(std::exchange(child_, -1), &status, 0) < 0 || WIFEXITED(status)) return "ended";
  if (WTERMSIG(status) == SIGXCPU) return fmt::format("took over {} s of processor time", kSecondsAMessage);
  return fmt::format("crashed ({})", strsignal(WTERMSIG(status)));
}

}  // namespace tq
