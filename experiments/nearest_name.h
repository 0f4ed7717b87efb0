#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace tq {

// The name that takes the fewest insertions, deletions and replacements to get from `text`; the first of
// equals. `names` is not empty.
std::string nearest_name(std::string_view text, const std::vector<std::string>& names);

}  // namespace tq
