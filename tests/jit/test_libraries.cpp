// Opening NVRTC and the driver, present or not.
#include <doctest/doctest.h>
#include <stdlib.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "core/error.h"
#include "jit/device.h"
#include "jit/nvrtc_api.h"
#include "jit/shared_library.h"
#include "tests/jit/nvrtc_present.h"
#include "tests/support/temporary_folder.h"

using tq::SharedLibrary;
using tq::nvrtc::SearchPlaces;

namespace {

// Sets or, with nullptr, removes a variable of the environment for the time of a test.
class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) {
    if (const char* old = getenv(name)) old_ = old, was_set_ = true;
    value != nullptr ? setenv(name, value, 1) : unsetenv(name);
  }
  ~Variable() { was_set_ ? setenv(name_, old_.c_str(), 1) : unsetenv(name_); }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  const char* name_;
  std::string old_;
  bool was_set_ = false;
};

bool contains(const std::vector<std::string>& list, const std::string& entry) {
  return std::find(list.begin(), list.end(), entry) != list.end();
}

}  // namespace

TEST_CASE("the first library that can be opened is") {
  const std::array<std::string, 2> names{"libnone-of-this-name.so.1", "libm.so.6"};
  const SharedLibrary library = SharedLibrary::open_first(names, "no library", "get one");
  CHECK(library.file().find("libm.so.6") != std::string::npos);
  CHECK(library.find("cos") != nullptr);
  CHECK(library.find("no_such_function") == nullptr);
  CHECK_THROWS_WITH_AS(library.require("no_such_function"), doctest::Contains("no_such_function"),
                       tq::SystemError);
  const tq::LibraryFunction<"cos", double(double)> cosine{library};
  CHECK(cosine(0) == 1);
  CHECK(!tq::LibraryFunction<"no_such_function", int()>(library, tq::Presence::optional));
}

TEST_CASE("a library that is nowhere is an error with the loader's reason") {
  const std::array<std::string, 1> names{"libnone-of-this-name.so.1"};
  CHECK_THROWS_WITH_AS(SharedLibrary::open_first(names, "no library", "get one"),
                       doctest::Contains("no library (libnone-of-this-name.so.1: cannot open"),
                       tq::SystemError);
}

TEST_CASE("NVRTC is looked for where the environment says") {
  const Variable home("CUDA_HOME", "/opt/cuda-x"), path("CUDA_PATH", "");
  {
    const Variable library("TQ_NVRTC_LIBRARY", nullptr);
    const auto candidates = SearchPlaces::from_environment().candidates();
    CHECK(candidates.front() == "libnvrtc.so.13");
    CHECK(contains(candidates, "libnvrtc.so.12"));
    CHECK(contains(candidates, "/opt/cuda-x/lib64/libnvrtc.so.13"));
    CHECK(contains(candidates, "/opt/cuda-x/lib64/libnvrtc.so.12"));
    CHECK(contains(candidates, "/usr/local/cuda/lib64/libnvrtc.so.13"));
    CHECK(!contains(candidates, "/lib64/libnvrtc.so.13"));  // of the empty CUDA_PATH
    CHECK(candidates.back().ends_with("/../lib/libnvrtc.so.12"));
  }
  {
    const Variable library("TQ_NVRTC_LIBRARY", "/opt/nvrtc/libnvrtc.so.12");
    CHECK(SearchPlaces::from_environment().candidates() ==
          std::vector<std::string>{"/opt/nvrtc/libnvrtc.so.12"});
  }
  const tq::test::TemporaryFolder folder;
  const std::string place = folder / "";
  const Variable library("TQ_NVRTC_LIBRARY", place.c_str());
  CHECK(SearchPlaces::from_environment().candidates() ==
        std::vector<std::string>{place + "/libnvrtc.so.13", place + "/libnvrtc.so.12"});
}

TEST_CASE("NVRTC's version and identity are known, and it is opened once") {
  if (!tq::test::nvrtc_present()) return;
  CHECK(tq::nvrtc::version().major >= 12);
  const std::string version =
      std::to_string(tq::nvrtc::version().major) + "." + std::to_string(tq::nvrtc::version().minor);
  CHECK(tq::nvrtc::identity().starts_with(version + ", "));
  MESSAGE("NVRTC ", tq::nvrtc::identity(), " at ", tq::nvrtc::api().library.file());
  CHECK_THROWS_AS(tq::nvrtc::open(SearchPlaces{}), tq::UsageError);
}

TEST_CASE("without a driver, asking for a GPU says so") {
  try {
    const int count = tq::Device::count();
    MESSAGE("not tried: there is a driver, and ", count, " GPU(s)");
    CHECK_THROWS_WITH_AS(tq::Device::open(count + 1000), doctest::Contains("GPU"), tq::SystemError);
  } catch (const tq::SystemError& error) {
    CHECK(std::string(error.what()).find("NVIDIA driver") != std::string::npos);
    CHECK_THROWS_AS(tq::Device::open(0), tq::SystemError);  // again, not only the first time
  }
}
