#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "core/error.h"
#include "datasets/atomic_file.h"

namespace fs = std::filesystem;

namespace {

// An empty folder of this test's own.
std::string fresh_folder(const std::string& name) {
  const std::string folder = std::string(TQ_WRITTEN) + "/atomic_" + name;
  fs::remove_all(folder);
  fs::create_directories(folder);
  return folder;
}

void put(const std::string& path, const std::string& text) { std::ofstream(path) << text; }

std::string get(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::size_t files_in(const std::string& folder) {
  return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

// The number of a process that has just ended.
pid_t dead_process() {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  waitpid(child, nullptr, 0);
  return child;
}

}  // namespace

TEST_CASE("a file appears whole, in place of the old one, and leaves nothing beside it") {
  const std::string folder = fresh_folder("whole"), target = folder + "/a.json";
  tq::write_file_atomically(target, "first");
  CHECK(get(target) == "first");
  tq::write_file_atomically(target, std::string(1 << 20, 'x'));
  CHECK(get(target).size() == 1 << 20);
  CHECK(files_in(folder) == 1);
}

TEST_CASE("without commit the old file stays") {
  const std::string folder = fresh_folder("abandoned"), target = folder + "/a.json";
  put(target, "old");
  {
    tq::AtomicFile file(target);
    put(file.temporary(), "new");
    CHECK(files_in(folder) == 2);
    CHECK(get(target) == "old");
  }
  CHECK(get(target) == "old");
  CHECK(files_in(folder) == 1);
}

TEST_CASE("two writers of one target do not meet") {
  const std::string folder = fresh_folder("two"), target = folder + "/a.json";
  tq::AtomicFile first(target);
  put(first.temporary(), "first");
  tq::AtomicFile second(target);
  put(second.temporary(), "second");
  second.commit();
  CHECK(get(target) == "second");
  first.commit();
  CHECK(get(target) == "first");
  CHECK(files_in(folder) == 1);
}

TEST_CASE("temporaries of ended processes go, those of live ones and of other targets stay") {
  const std::string folder = fresh_folder("stale"), target = folder + "/a.json";
  const std::string dead = fmt::format("{}/.a.json.tq-tmp.{}-0", folder, dead_process());
  const std::string own_number = fmt::format("{}/.a.json.tq-tmp.{}-999999", folder, getpid());
  const std::string live = fmt::format("{}/.a.json.tq-tmp.{}-0", folder, getppid());
  const std::string other = fmt::format("{}/.b.json.tq-tmp.{}-0", folder, dead_process());
  const std::string foreign = folder + "/.a.json.tq-tmp.notes";
  for (const std::string& path : {dead, own_number, live, other, foreign}) put(path, "x");
  tq::write_file_atomically(target, "text");
  CHECK(!fs::exists(dead));
  CHECK(!fs::exists(own_number));
  CHECK(fs::exists(live));
  CHECK(fs::exists(other));
  CHECK(fs::exists(foreign));
}

TEST_CASE("a killed process leaves the old file, and the next writer cleans up after it") {
  const std::string folder = fresh_folder("killed"), target = folder + "/a.json";
  put(target, "old");
  const pid_t child = fork();
  if (child == 0) {
    tq::AtomicFile file(target);
    put(file.temporary(), "half");
    kill(getpid(), SIGKILL);
  }
  waitpid(child, nullptr, 0);
  CHECK(get(target) == "old");
  CHECK(files_in(folder) == 2);
  tq::write_file_atomically(target, "new");
  CHECK(get(target) == "new");
  CHECK(files_in(folder) == 1);
}

TEST_CASE("a signal handler can remove the live temporaries") {
  const std::string folder = fresh_folder("signal");
  put(folder + "/a.json", "old");
  tq::AtomicFile first(folder + "/a.json"), second(folder + "/b.json");
  put(first.temporary(), "half");
  put(second.temporary(), "half");
  tq::remove_temporaries_on_signal();
  CHECK(files_in(folder) == 1);
  CHECK(get(folder + "/a.json") == "old");
  CHECK_THROWS_AS(first.commit(), tq::SystemError);
}

TEST_CASE("what cannot be written is refused before anything is") {
  const std::string folder = fresh_folder("refused");
  CHECK_THROWS_AS(tq::AtomicFile(folder + "/none/a.json"), tq::SystemError);
  CHECK_THROWS_AS(tq::AtomicFile{folder}, tq::SystemError);
  CHECK_THROWS_AS(tq::AtomicFile(folder + "/"), tq::SystemError);
  CHECK_THROWS_AS(tq::AtomicFile("/dev/null"), tq::SystemError);
  CHECK(files_in(folder) == 0);
}
