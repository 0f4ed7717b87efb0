#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace tq {

// Text as Markdown shows it letter by letter, on one line.
std::string markdown_text(std::string_view text);

// A table; cells are Markdown.
class MarkdownTable {
 public:
  explicit MarkdownTable(const std::vector<std::string>& header);
  void row(const std::vector<std::string>& cells);
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

}  // namespace tq
