#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>

#include "core/error.h"
#include "datasets/confined_process.h"

namespace {

const std::string kForbidden = std::string(TQ_WRITTEN) + "/forbidden";

// What the child tries, by name: 0 where it could, else errno.
int tried(long result) { return result < 0 ? errno : 0; }

const std::map<std::string, int (*)()>& attempts() {
  static const std::map<std::string, int (*)()> list{
      {"socket", [] { return tried(socket(AF_INET, SOCK_STREAM, 0)); }},
      {"socket of this machine", [] { return tried(socket(AF_UNIX, SOCK_STREAM, 0)); }},
      {"create", [] { return tried(open(kForbidden.c_str(), O_WRONLY | O_CREAT, 0600)); }},
      {"create for reading", [] { return tried(open(kForbidden.c_str(), O_RDONLY | O_CREAT, 0600)); }},
      {"write", [] { return tried(write(STDOUT_FILENO, "x", 1)); }},
      {"unlink", [] { return tried(unlink("/nonexistent")); }},
      {"rename", [] { return tried(rename("/nonexistent", "/nonexistent2")); }},
      {"mkdir", [] { return tried(mkdir(kForbidden.c_str(), 0700)); }},
      {"exec", [] { return tried(execl("/bin/true", "true", nullptr)); }},
      {"fork", [] { return tried(fork()); }},
      {"kill", [] { return tried(kill(getppid(), 0)); }},
      {"executable memory",
       [] {
         void* memory = mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
         return memory == MAP_FAILED ? errno : 0;
       }},
      {"a file to read", [] { return tried(open("/etc/passwd", O_RDONLY)); }},
      {"a second file to read", [] { return tried(open("/etc/passwd", O_RDONLY)); }},
      {"a third after closing one",
       [] { return tried(close(4)) != 0 ? 0 : tried(open("/etc/passwd", O_RDONLY)); }},
  };
  return list;
}

std::string answer(const std::string& message) {
  if (message == "crash") __builtin_trap();
  if (message == "spin") {
    for (volatile unsigned i = 0;;) i = i + 1;
  }
  if (message == "leave") _exit(0);
  if (message == "memory") {
    // Half as much again as it may have.
    void* memory =
        mmap(nullptr, std::size_t{3} << 29, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return std::to_string(memory == MAP_FAILED ? errno : 0);
  }
  const auto attempt = attempts().find(message);
  return attempt == attempts().end() ? message : std::to_string(attempt->second());
}

int attempt(tq::ConfinedProcess& process, const std::string& name) {
  INFO(name);
  REQUIRE(attempts().contains(name));
  return std::stoi(process.ask(name, "file"));
}

}  // namespace

TEST_CASE("a confined process answers, however long the message") {
  tq::ConfinedProcess process(answer);
  CHECK(process.ask("", "file").empty());
  const std::string text(10'000'000, 'x');
  CHECK(process.ask(text, "file") == text);
}

TEST_CASE("a confined process cannot reach a network, write, or start anything") {
  tq::ConfinedProcess process(answer);
  for (const char* name : {"socket", "socket of this machine", "create", "create for reading", "write",
                           "unlink", "rename", "mkdir", "exec", "fork", "kill", "executable memory"}) {
    CHECK(attempt(process, name) == EPERM);
  }
  CHECK(!std::filesystem::exists(kForbidden));
  CHECK(std::stoi(process.ask("memory", "file")) == ENOMEM);
}

TEST_CASE("a confined process opens one file for reading, and no other") {
  tq::ConfinedProcess process(answer);
  CHECK(attempt(process, "a file to read") == 0);
  CHECK(attempt(process, "a second file to read") == EMFILE);
  CHECK(attempt(process, "a third after closing one") == EMFILE);
}

TEST_CASE("what was tried works in a process that is not confined") {
  for (const char* name :
       {"socket", "socket of this machine", "kill", "executable memory", "a file to read"}) {
    INFO(name);
    CHECK(attempts().at(name)() == 0);
  }
}

TEST_CASE("the end of a confined process is an InputError, and others live on") {
  tq::ConfinedProcess other(answer);
  const auto message_of = [](const std::string& cause) {
    tq::ConfinedProcess process(answer);
    try {
      process.ask(cause, "a.h5");
    } catch (const tq::InputError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  CHECK(message_of("crash").starts_with(
      "a.h5: the HDF5 library crashed (Illegal instruction) while it read the file"));
  CHECK(message_of("leave").starts_with("a.h5: the HDF5 library ended while"));
  CHECK(message_of("spin").starts_with("a.h5: the HDF5 library took over 5 s of processor time while"));
  CHECK(other.ask("hello", "file") == "hello");
}

TEST_CASE("no child stays behind") {
  { tq::ConfinedProcess process(answer); }
  CHECK(waitpid(-1, nullptr, WNOHANG) == -1);
  CHECK(errno == ECHILD);
}
