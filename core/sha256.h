#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace tq {

// SHA-256 (FIPS 180-4) of a stream of bytes: update() any number of times, then finish() once.
class Sha256 {
 public:
  using Digest = std::array<std::uint8_t, 32>;

  void update(const void* data, std::size_t bytes);
  Digest finish();

 private:
  void compress(const std::uint8_t* block);

  std::array<std::uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::uint8_t, 64> block_{};
  std::size_t filled_ = 0;   // bytes waiting in block_
  std::uint64_t total_ = 0;  // bytes seen
};

// 64 lower-case hexadecimal digits.
std::string to_hex(const Sha256::Digest& digest);
std::string sha256_hex(std::string_view data);

// Of a file's content, read in pieces. Throws InputError when the file cannot be opened or read.
std::string sha256_file_hex(const std::string& path);

}  // namespace tq
