#pragma once

#include <string>
#include <vector>

namespace tq {

// A table for a person: columns as wide as their widest cell, two blanks between, the first column
// left-aligned, the others right-aligned, a rule under the header.
class Table {
 public:
  explicit Table(std::vector<std::string> header);
  void row(std::vector<std::string> cells);
  // A rule above the next row.
  void rule();
  std::string text() const;

 private:
  std::vector<std::vector<std::string>> rows_;  // an empty row is a rule
};

}  // namespace tq
