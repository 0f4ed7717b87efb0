# Writes OUTPUT: the files named in LIST, relative to ROOT, as arrays of bytes behind the function NAME. Bytes
# rather than string literals: those have a length limit and would need their delimiter chosen.
cmake_minimum_required(VERSION 3.25)
file(READ ${LIST} files)
set(arrays "")
set(entries "")
set(index 0)
foreach(file IN LISTS files)
  file(READ ${ROOT}/${file} hex HEX)
  string(REGEX REPLACE "(................................)" "\\1\n" hex "${hex}")
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "'\\\\x\\1'," bytes "${hex}")
  # An empty file too needs an element.
  string(APPEND arrays "constexpr char kFile${index}[] = {\n${bytes}'\\0'};\n")
  string(APPEND entries "    {\"${file}\", {kFile${index}, sizeof kFile${index} - 1}},\n")
  math(EXPR index "${index} + 1")
endforeach()
file(WRITE ${OUTPUT} "#include \"jit/source_tree.h\"

namespace tq {
std::span<const EmbeddedFile> ${NAME}();
namespace {

${arrays}
constexpr EmbeddedFile kFiles[] = {
${entries}};

}  // namespace

std::span<const EmbeddedFile> ${NAME}() { return kFiles; }

}  // namespace tq
")
