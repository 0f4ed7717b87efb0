#pragma once

#include <string>
#include <string_view>

namespace tq {

// What gnuplot writes to its standard output when it reads `script`. It runs as a child process without a
// shell and without the user's start-up files. Throws SystemError when it is not installed or fails.
std::string run_gnuplot(const std::string& script);

// A string of gnuplot's language. Single quotes: gnuplot runs what stands between backquotes in double ones.
std::string gnuplot_string(std::string_view text);

}  // namespace tq
