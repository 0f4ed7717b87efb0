#pragma once

#include <fstream>
#include <sstream>
#include <string>
#include <vector>

// The lists that the makers of test files leave beside them: one entry a line, fields between tabs.
inline std::vector<std::vector<std::string>> read_manifest(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::vector<std::string>> entries;
  for (std::string line; std::getline(file, line);) {
    std::istringstream fields(line);
    entries.emplace_back();
    for (std::string field; std::getline(fields, field, '\t');) entries.back().push_back(field);
  }
  return entries;
}
