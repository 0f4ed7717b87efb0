#include <doctest/doctest.h>

#include <filesystem>
#include <map>
#include <string>

#include "core/error.h"
#include "jit/source_tree.h"
#include "tests/jit/kernels.h"
#include "tests/support/temporary_folder.h"

using tq::SourceTree;
using tq::test::write_text;
using Files = std::map<std::string, std::string>;

namespace {
const std::string kEmbeddedFolder = TQ_EMBEDDED_FOLDER;  // defined by CMake
}  // namespace

TEST_CASE("embedded files are those of the folder, byte for byte") {
  const SourceTree tree = tq::test::test_tree();
  CHECK(tree.files().size() == 3);
  CHECK(tree.files().at("shared/empty.h").empty());
  const SourceTree from_folder = SourceTree::from_folder(kEmbeddedFolder);
  CHECK(tree.files() == from_folder.files());
  CHECK(tree.digest() == from_folder.digest());
}

TEST_CASE("a folder's sources are taken, and nothing else") {
  const tq::test::TemporaryFolder folder;
  std::filesystem::create_directories(folder / "device/deep");
  std::filesystem::create_directories(folder / ".hidden");
  write_text(folder / "device/a.cuh", "a");
  write_text(folder / "device/deep/b.h", "b");
  write_text(folder / "notes.txt", "no source");
  write_text(folder / "device/.a.cuh.swp", "an editor's");
  write_text(folder / ".hidden/c.cuh", "hidden");
  const Files expected{{"device/a.cuh", "a"}, {"device/deep/b.h", "b"}};
  CHECK(SourceTree::from_folder(folder / "").files() == expected);
  CHECK(SourceTree::from_folder(folder / "device/..").files() == expected);
}

TEST_CASE("a folder without sources is an error that names it") {
  const tq::test::TemporaryFolder folder;
  CHECK_THROWS_WITH_AS(SourceTree::from_folder(folder / "none"), doctest::Contains("none"), tq::InputError);
  CHECK_THROWS_AS(SourceTree::from_folder(folder / ""), tq::InputError);
}

TEST_CASE("the digest covers paths and contents and where one ends") {
  const auto digest = [](Files files) { return SourceTree(std::move(files)).digest(); };
  const auto base = digest({{"a.h", "one"}, {"b.h", "two"}});
  CHECK(base == digest({{"b.h", "two"}, {"a.h", "one"}}));
  CHECK(base != digest({{"a.h", "One"}, {"b.h", "two"}}));
  CHECK(base != digest({{"A.h", "one"}, {"b.h", "two"}}));
  CHECK(base != digest({{"a.h", "one"}}));
  CHECK(base != digest({{"a.h", "two"}, {"b.h", "one"}}));
  CHECK(digest({{"a", "bc"}}) != digest({{"ab", "c"}}));
  CHECK(digest({{"a", ""}, {"b", ""}}) != digest({{"a", "b"}}));
}
