#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "jit/cache_entry.h"
#include "jit/cubin_cache.h"
#include "jit/image_store.h"
#include "tests/jit/kernels.h"
#include "tests/jit/nvrtc_present.h"
#include "tests/support/temporary_folder.h"

using namespace tq::test;
using tq::Architecture;
using tq::CompiledImage;
using tq::CubinCache;
using tq::KernelSource;
using tq::SourceTree;
namespace fs = std::filesystem;

namespace {

const Architecture kHopper{9, 0};

CompiledImage image_of(std::size_t bytes, char content = 'x') {
  CompiledImage image;
  image.cubin.assign(bytes, static_cast<std::byte>(content));
  image.lowered_name = "_Z5scale";
  image.usage = {.registers = 32,
                 .spill_store_bytes = 1,
                 .spill_load_bytes = 2,
                 .stack_frame_bytes = 3,
                 .static_shared_bytes = 4,
                 .constant_bytes = 5};
  image.log = "a warning\n";
  return image;
}

bool same(const CompiledImage& a, const CompiledImage& b) {
  return a.cubin == b.cubin && a.lowered_name == b.lowered_name && a.usage == b.usage && a.log == b.log;
}

// Compiled twice from one source: the log says how long it took, and NVRTC 12.0 numbers what it makes.
bool equivalent(const CompiledImage& a, const CompiledImage& b) {
  return a.cubin.size() == b.cubin.size() && a.lowered_name == b.lowered_name && a.usage == b.usage;
}

std::string key_number(int number) {
  std::string key = std::to_string(number);
  return std::string(64 - key.size(), '0') + key;
}

std::vector<fs::path> files_of(const std::string& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) files.push_back(entry.path());
  return files;
}

void make_older(const fs::path& file, std::chrono::seconds age) {
  fs::last_write_time(file, fs::file_time_type::clock::now() - age);
}

}  // namespace

TEST_CASE("what is stored is found, and nothing else") {
  const TemporaryFolder folder;
  CubinCache cache(folder / "cache");
  CHECK(!cache.find(key_number(1)));
  const CompiledImage image = image_of(1000);
  CHECK(cache.store(key_number(1), image));
  const auto found = cache.find(key_number(1));
  REQUIRE(found);
  CHECK(same(*found, image));
  CHECK(!cache.find(key_number(2)));
  CHECK(cache.problem().empty());
  // Another object, another process: the same.
  CHECK(CubinCache(folder / "cache").find(key_number(1)));

  const CompiledImage other = image_of(10, 'y');
  CHECK(cache.store(key_number(1), other));
  CHECK(same(*cache.find(key_number(1)), other));

  CHECK(cache.info().entries == 1);
  CHECK(cache.info().bytes == fs::file_size(files_of(folder / "cache").front()));
  CHECK(cache.info().folder == folder / "cache");
  CHECK(cache.clear() == 1);
  CHECK(cache.info().entries == 0);
  CHECK(!cache.find(key_number(1)));
}

TEST_CASE("everything that can change a kernel changes its key") {
  const KernelSource source{"label", "text", "name", {"--option=1", "--other"}};
  const SourceTree tree(std::map<std::string, std::string>{{"a.h", "int a;"}});
  const auto key =
      [&](const KernelSource& s,
          const SourceTree& t = SourceTree(std::map<std::string, std::string>{{"a.h", "int a;"}}),
          Architecture architecture = kHopper,
          const std::string& nvrtc = "13.0, build 1") { return tq::cubin_key(s, t, architecture, nvrtc); };
  const std::string base = key(source);
  CHECK(base.size() == 64);
  CHECK(base == key(source));

  KernelSource changed = source;
  changed.text = "text ";
  CHECK(key(changed) != base);
  changed = source;
  changed.name_expression = "name2";
  CHECK(key(changed) != base);
  changed = source;
  changed.options = {"--option=2", "--other"};
  CHECK(key(changed) != base);
  changed.options = {"--option=1"};
  CHECK(key(changed) != base);
  changed.options = {"--other", "--option=1"};  // the order may matter
  CHECK(key(changed) != base);
  changed.options = {"--option=1--other"};
  CHECK(key(changed) != base);
  using Files = std::map<std::string, std::string>;
  CHECK(key(source, SourceTree(Files{{"a.h", "int b;"}})) != base);
  CHECK(key(source, SourceTree(Files{{"b.h", "int a;"}})) != base);
  CHECK(key(source, SourceTree(Files{{"a.h", "int a;"}, {"b.h", ""}})) != base);
  CHECK(key(source, tree, {8, 0}) != base);
  CHECK(key(source, tree, {9, 0, true}) != base);
  CHECK(key(source, tree, kHopper, "13.0, build 2") != base);
  CHECK(key(source, tree, kHopper, "13.1, build 1") != base);
  // A field's end is part of it.
  changed = source;
  changed.text = "textn";
  changed.name_expression = "ame";
  CHECK(key(changed) != base);

  // A label is a name for people.
  changed = source;
  changed.label = "another";
  CHECK(key(changed) == base);
}

TEST_CASE("an entry cut short anywhere, or with any byte changed, is a miss") {
  const std::string key = key_number(7);
  const std::string whole = tq::write_cache_entry(key, image_of(100));
  REQUIRE(tq::read_cache_entry(whole, key));
  CHECK(!tq::read_cache_entry(whole, key_number(8)));
  CHECK(!tq::read_cache_entry(whole + '\0', key));
  for (std::size_t length = 0; length < whole.size(); ++length) {
    if (tq::read_cache_entry(std::string_view(whole).substr(0, length), key)) FAIL("cut to ", length);
  }
  for (std::size_t at = 0; at < whole.size(); ++at) {
    for (const int bit : {0, 3, 7}) {
      std::string damaged = whole;
      damaged[at] = static_cast<char>(damaged[at] ^ (1 << bit));
      if (tq::read_cache_entry(damaged, key)) FAIL("bit ", bit, " of byte ", at);
    }
  }
}

TEST_CASE("an entry whose digest is right and whose content is not is a miss") {
  // As a program with a bug, or of another format, could write it.
  const std::string key = key_number(7);
  CHECK(!tq::read_cache_entry(tq::write_cache_entry(key, image_of(0)), key));
  std::string huge = tq::write_cache_entry(key, image_of(8)).substr(0, 8 + tq::kCacheFormat.size());
  huge += std::string(8, '\xff');  // a length beyond all memory
  tq::Sha256 hash;
  hash.update(huge.data(), huge.size());
  const auto digest = hash.finish();
  huge.append(reinterpret_cast<const char*>(digest.data()), digest.size());
  CHECK(!tq::read_cache_entry(huge, key));
}

TEST_CASE("a damaged file is removed and replaced") {
  const TemporaryFolder folder;
  CubinCache cache(folder / "");
  const CompiledImage image = image_of(100);
  cache.store(key_number(1), image);
  const fs::path file = files_of(folder / "").front();
  for (const std::string& content : {std::string(), std::string("rubbish"), read_text(file).substr(1)}) {
    write_text(file, content);
    CHECK(!cache.find(key_number(1)));
    CHECK(!fs::exists(file));
    CHECK(cache.store(key_number(1), image));
    CHECK(cache.find(key_number(1)));
  }
  // Another key's entry under this one's name.
  cache.store(key_number(2), image_of(50));
  for (const fs::path& other : files_of(folder / "")) {
    if (other != file) fs::copy_file(other, file, fs::copy_options::overwrite_existing);
  }
  CHECK(!cache.find(key_number(1)));
  CHECK(cache.find(key_number(2)));
  CHECK(cache.problem().empty());
}

TEST_CASE("a folder that cannot be written is no cache, and no error") {
  const TemporaryFolder folder;
  SUBCASE("read-only") {
    if (geteuid() == 0) {
      MESSAGE("skipped: root may write to a read-only folder");
      return;
    }
    const std::string path = folder / "read-only";
    CHECK(CubinCache(path).store(key_number(1), image_of(100)));
    REQUIRE(chmod(path.c_str(), 0555) == 0);
    CubinCache cache(path);
    CHECK(cache.find(key_number(1)));  // what is there can be used
    CHECK(!cache.store(key_number(2), image_of(100)));
    CHECK(!cache.find(key_number(2)));
    CHECK(cache.problem().find(path) != std::string::npos);
    chmod(path.c_str(), 0755);
  }
  SUBCASE("a file stands in its place") {
    write_text(folder / "file", "");
    CubinCache cache(folder / "file");
    CHECK(!cache.find(key_number(1)));
    CHECK(!cache.store(key_number(1), image_of(100)));
    CHECK(cache.info().entries == 0);
    CHECK(cache.clear() == 0);
    CHECK(cache.problem().find("file") != std::string::npos);
  }
  SUBCASE("it cannot be made") {
    CubinCache cache("/proc/no/such/folder");
    CHECK(!cache.find(key_number(1)));
    CHECK(cache.problem().empty());  // not there yet is no problem
    CHECK(!cache.store(key_number(1), image_of(100)));
    const std::string problem = cache.problem();
    CHECK(!problem.empty());
    CHECK(!cache.store(key_number(1), image_of(100)));
    CHECK(cache.problem() == problem);
  }
  SUBCASE("it is removed while in use") {
    CubinCache cache(folder / "gone");
    CHECK(cache.store(key_number(1), image_of(100)));
    fs::remove_all(folder / "gone");
    CHECK(!cache.find(key_number(1)));
    CHECK(cache.info().entries == 0);
    CHECK(cache.store(key_number(1), image_of(100)));
    CHECK(cache.find(key_number(1)));
  }
}

TEST_CASE("the least recently used entries go when the cache is full") {
  const TemporaryFolder folder;
  const std::uint64_t entry_bytes = tq::write_cache_entry(key_number(0), image_of(10'000)).size();
  CubinCache cache(folder / "", 4 * entry_bytes);
  for (int i = 0; i < 4; ++i) {
    CHECK(cache.store(key_number(i), image_of(10'000)));
    make_older(folder / (key_number(i) + ".tqcubin"), std::chrono::hours(10 - i));
  }
  CHECK(cache.info().entries == 4);
  CHECK(cache.find(key_number(0)));  // the oldest has just been used
  CHECK(cache.store(key_number(4), image_of(10'000)));
  CHECK(cache.info().entries == 4);
  CHECK(cache.info().bytes <= 4 * entry_bytes);
  CHECK(cache.find(key_number(0)));
  CHECK(!cache.find(key_number(1)));
  CHECK(cache.find(key_number(2)));
  CHECK(cache.find(key_number(3)));
  CHECK(cache.find(key_number(4)));

  CHECK(!cache.store(key_number(5), image_of(50'000)));  // larger than all
  CHECK(cache.info().entries == 4);
  CHECK(cache.store(key_number(6), image_of(35'000)));  // nearly as large: it stays, the others go
  CHECK(cache.info().entries == 1);
  CHECK(cache.find(key_number(6)));
}

TEST_CASE("files that are not the cache's own are left alone, stale temporaries are not") {
  const TemporaryFolder folder;
  write_text(folder / "notes.txt", std::string(100'000, 'x'));
  write_text(folder / ".tqcubin-tmp.old", "left behind");
  make_older(folder / ".tqcubin-tmp.old", std::chrono::hours(2));
  write_text(folder / ".tqcubin-tmp.new", "being written");
  CubinCache cache(folder / "", 10'000);
  CHECK(cache.store(key_number(1), image_of(100)));
  CHECK(fs::exists(folder / "notes.txt"));
  CHECK(!fs::exists(folder / ".tqcubin-tmp.old"));
  CHECK(fs::exists(folder / ".tqcubin-tmp.new"));
  CHECK(cache.clear() == 1);
  CHECK(fs::exists(folder / "notes.txt"));
  CHECK(files_of(folder / "").size() == 1);
}

TEST_CASE("a kernel comes from the disk the second time") {
  if (!nvrtc_present()) return;
  const TemporaryFolder folder;
  const auto get = [&] {
    return tq::ImageStore(test_tree(), CubinCache(folder / "cache")).get(scale_kernel(), kHopper);
  };
  const auto first = get(), second = get();
  CHECK(!first.from_cache);
  CHECK(second.from_cache);
  CHECK(same(first.image, second.image));
  CHECK(!tq::ImageStore(test_tree()).get(scale_kernel(), kHopper).from_cache);  // without a cache
  tq::ImageStore broken(test_tree(), CubinCache("/proc/no/such/folder"));
  CHECK(equivalent(broken.get(scale_kernel(), kHopper).image, first.image));
  CHECK(!broken.cache_problem().empty());
}

TEST_CASE("64 processes that warm one cache at once end with a valid one") {
  if (!nvrtc_present()) return;
  const TemporaryFolder folder;
  constexpr int kProcesses = 64, kKernels = 3;
  const CompiledImage expected[kKernels] = {tq::compile(scale_kernel(0), test_tree(), kHopper),
                                            tq::compile(scale_kernel(1), test_tree(), kHopper),
                                            tq::compile(scale_kernel(2), test_tree(), kHopper)};
  // None starts before all are there: they wait for the pipe's other end to close.
  int start[2];
  REQUIRE(pipe(start) == 0);
  std::vector<pid_t> children;
  for (int process = 0; process < kProcesses; ++process) {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      close(start[1]);
      char unused;
      [[maybe_unused]] const ssize_t end = read(start[0], &unused, 1);
      int status = 1;
      try {
        tq::ImageStore store(test_tree(), CubinCache(folder / "cache"));
        status = 0;
        for (int i = 0; i < kKernels; ++i) {
          const int kernel = (i + process) % kKernels;
          if (!equivalent(store.get(scale_kernel(kernel), kHopper).image, expected[kernel])) status = 2;
        }
        if (!store.cache_problem().empty()) status = 3;
      } catch (...) {
        status = 4;
      }
      _exit(status);
    }
    children.push_back(child);
  }
  close(start[0]);
  close(start[1]);
  for (const pid_t child : children) {
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    REQUIRE(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
  }
  CHECK(files_of(folder / "cache").size() == kKernels);  // no temporaries
  tq::ImageStore store(test_tree(), CubinCache(folder / "cache"));
  for (int kernel = 0; kernel < kKernels; ++kernel) {
    const auto found = store.get(scale_kernel(kernel), kHopper);
    CHECK(found.from_cache);
    CHECK(equivalent(found.image, expected[kernel]));
  }
}
