#include "experiments/markdown.h"

namespace tq {

std::string markdown_text(std::string_view text) {
  constexpr std::string_view kSpecial = "\\`*[]<>|";
  std::string escaped;
  for (const char c : text) {
    if (kSpecial.find(c) != std::string_view::npos) escaped += '\\';
    escaped += static_cast<unsigned char>(c) < ' ' ? ' ' : c;
  }
  return escaped;
}

MarkdownTable::MarkdownTable(const std::vector<std::string>& header) {
  row(header);
  text_ += "|";
  for (std::size_t i = 0; i < header.size(); ++i) text_ += "---|";
  text_ += "\n";
}

void MarkdownTable::row(const std::vector<std::string>& cells) {
  text_ += "|";
  for (const std::string& cell : cells) text_.append(" ").append(cell).append(" |");
  text_ += "\n";
}

}  // namespace tq
