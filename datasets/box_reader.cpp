#include "datasets/box_reader.h"

#include <libdeflate.h>
#include <omp.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

#include "core/error.h"

namespace tq::hdf5 {
namespace {

constexpr std::size_t kMaxDecodedInFlight = std::size_t{512} << 20;
// Less than this is decoded sooner than one more thread wakes.
constexpr std::size_t kWorthThread = std::size_t{1} << 18;
// A batch of chunks this large keeps threads from waiting for one another at its end.
constexpr std::size_t kBatchBytes = std::size_t{16} << 20;
constexpr std::size_t kChecksumBytes = 4;

// The checksum of HDF5's fletcher32 filter: over big-endian 16-bit words, an odd byte last as a high byte.
std::uint32_t fletcher32(const std::byte* data, std::size_t size) {
  // Words that can be summed before the 32-bit sums must be folded.
  constexpr std::size_t kBlock = 360;
  std::uint32_t sum1 = 0, sum2 = 0;
  const auto fold = [&] {
    sum1 = (sum1 & 0xffffu) + (sum1 >> 16);
    sum2 = (sum2 & 0xffffu) + (sum2 >> 16);
  };
  for (std::size_t words = size / 2; words > 0;) {
    const std::size_t block = std::min(words, kBlock);
    for (std::size_t i = 0; i < block; ++i, data += 2) {
      sum1 += std::to_integer<std::uint32_t>(data[0]) << 8 | std::to_integer<std::uint32_t>(data[1]);
      sum2 += sum1;
    }
    fold();
    words -= block;
  }
  if (size % 2 != 0) {
    sum1 += std::to_integer<std::uint32_t>(*data) << 8;
    sum2 += sum1;
    fold();
  }
  fold();
  return sum2 << 16 | sum1;
}

std::uint32_t little_endian32(const std::byte* bytes) {
  std::uint32_t value = 0;
  for (int i = 3; i >= 0; --i) value = value << 8 | std::to_integer<std::uint32_t>(bytes[i]);
  return value;
}

// Byte b of element i was stored at b * elements + i.
template <std::size_t kElementBytes>
void unshuffle(const std::byte* in, std::size_t elements, std::byte* out) {
  for (std::size_t i = 0; i < elements; ++i) {
    for (std::size_t b = 0; b < kElementBytes; ++b) out[i * kElementBytes + b] = in[b * elements + i];
  }
}

void unshuffle(const std::vector<std::byte>& in, std::size_t element_bytes, std::byte* out) {
  const std::size_t elements = in.size() / element_bytes;
  switch (element_bytes) {
    case 2:
      unshuffle<2>(in.data(), elements, out);
      break;
    case 4:
      unshuffle<4>(in.data(), elements, out);
      break;
    case 8:
      unshuffle<8>(in.data(), elements, out);
      break;
    default:
      for (std::size_t b = 0; b < element_bytes; ++b) {
        for (std::size_t i = 0; i < elements; ++i) out[i * element_bytes + b] = in[b * elements + i];
      }
  }
  std::copy(in.begin() + static_cast<std::ptrdiff_t>(elements * element_bytes), in.end(),
            out + elements * element_bytes);
}

// Inflates to exactly out.size() bytes; false where the stream holds more, less or nonsense.
bool inflate_exactly(const std::vector<std::byte>& in, std::vector<std::byte>& out) {
  const std::unique_ptr<libdeflate_decompressor, void (*)(libdeflate_decompressor*)> inflater(
      libdeflate_alloc_decompressor(), libdeflate_free_decompressor);
  if (!inflater) throw std::bad_alloc();
  // Without a place for the actual size, anything but an exact fit is a failure.
  return libdeflate_zlib_decompress(inflater.get(), in.data(), in.size(), out.data(), out.size(), nullptr) ==
         LIBDEFLATE_SUCCESS;
}

std::size_t product(const Extents& extents) {
  std::size_t all = 1;
  for (const std::size_t extent : extents) all *= extent;
  return all;
}

template <typename Word, Word (*swap)(Word)>
void swap_words(std::byte* data, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i, data += sizeof(Word)) {
    Word word;
    std::memcpy(&word, data, sizeof word);
    word = swap(word);
    std::memcpy(data, &word, sizeof word);
  }
}

std::uint16_t swap16(std::uint16_t word) { return __builtin_bswap16(word); }
std::uint32_t swap32(std::uint32_t word) { return __builtin_bswap32(word); }
std::uint64_t swap64(std::uint64_t word) { return __builtin_bswap64(word); }

void swap_bytes(std::byte* data, std::size_t count, std::size_t element_bytes) {
  if (element_bytes == 2) swap_words<std::uint16_t, swap16>(data, count);
  if (element_bytes == 4) swap_words<std::uint32_t, swap32>(data, count);
  if (element_bytes == 8) swap_words<std::uint64_t, swap64>(data, count);
}

}  // namespace

BoxReader::BoxReader(InputDataset dataset, std::size_t cache_bytes)
    : dataset_(std::move(dataset)),
      element_bytes_(dataset_.info().element_bytes),
      chunk_(dataset_.info().chunk),
      chunk_bytes_(element_bytes_ * product(chunk_)),
      cache_bytes_(cache_bytes) {}

void BoxReader::read(const Extents& start, const Extents& count, std::byte* out) {
  if (product(count) == 0) return;
  chunk_.empty() ? read_pieces(start, count, out) : read_chunks(start, count, out);
  const bool swapped = dataset_.info().big_endian != (std::endian::native == std::endian::big);
  if (swapped) swap_bytes(out, product(count), element_bytes_);
}

// Data without chunks, in halves until a piece is small enough. Axes before the one that is cut have one
// element, so that the halves lie one after the other.
void BoxReader::read_pieces(const Extents& start, const Extents& count, std::byte* out) const {
  const std::size_t bytes = element_bytes_ * product(count);
  if (bytes <= Storage::kMostBytesAtOnce) {
    const std::span<const std::byte> piece = dataset_.read_box(start, count);
    if (piece.size() != bytes)
      throw InputError("{}: cannot read the data; the file is damaged", dataset_.where());
    std::memcpy(out, piece.data(), bytes);
    return;
  }
  std::size_t axis = 0;
  while (count[axis] == 1) ++axis;
  Extents first = count, second = count, middle = start;
  first[axis] = count[axis] / 2;
  second[axis] -= first[axis];
  middle[axis] += first[axis];
  read_pieces(start, first, out);
  read_pieces(middle, second, out + element_bytes_ * product(first));
}

void BoxReader::read_chunks(const Extents& start, const Extents& count, std::byte* out) {
  const std::size_t rank = chunk_.size();
  const Extents& extents = dataset_.info().extents;
  Cache kept;
  std::size_t kept_bytes = 0;
  // Whether the next read may want the rest of this chunk.
  const auto in_part = [&](const Extents& place) {
    for (std::size_t a = 0; a < rank; ++a) {
      const std::size_t end = std::min(place[a] + chunk_[a], extents[a]);
      if (place[a] < start[a] || end > start[a] + count[a]) return true;
    }
    return false;
  };
  const auto keep = [&](const Extents& place, std::vector<std::byte>&& bytes) {
    if (kept_bytes + chunk_bytes_ > cache_bytes_ || !in_part(place)) return;
    kept_bytes += chunk_bytes_;
    kept.emplace(place, std::move(bytes));
  };

  // The chunks that overlap the box and are not at hand, in the order of the file.
  std::vector<Extents> wanted;
  Extents first(rank), at(rank);
  for (std::size_t a = 0; a < rank; ++a) at[a] = first[a] = start[a] / chunk_[a] * chunk_[a];
  for (bool more = true; more;) {
    if (const auto cached = cache_.find(at); cached != cache_.end()) {
      copy_overlap(cached->second.data(), at, start, count, out);
      keep(at, std::move(cached->second));
    } else {
      wanted.push_back(at);
    }
    more = false;
    for (std::size_t a = rank; a-- > 0 && !more;) {
      at[a] += chunk_[a];
      more = at[a] < start[a] + count[a];
      if (!more) at[a] = first[a];
    }
  }

  const std::size_t threads = std::clamp<std::size_t>(kMaxDecodedInFlight / (2 * chunk_bytes_), 1,
                                                      static_cast<std::size_t>(omp_get_max_threads()));
  const std::size_t most = std::max(4 * threads, kBatchBytes / chunk_bytes_);
  for (std::size_t next = 0; next < wanted.size();) {
    const auto begin = wanted.begin() + static_cast<std::ptrdiff_t>(next);
    const std::vector<Extents> places(
        begin, begin + static_cast<std::ptrdiff_t>(std::min(most, wanted.size() - next)));
    const std::vector<StoredChunk> batch = dataset_.read_chunks(places);
    std::vector<std::span<const std::byte>> stored;
    std::size_t used = 0;
    for (const StoredChunk& chunk : batch) {
      stored.push_back(dataset_.buffer().subspan(used, chunk.bytes));
      used += chunk.bytes;
    }
    std::vector<const char*> faults(batch.size(), nullptr);
    std::vector<std::vector<std::byte>> decoded(batch.size());
    const std::size_t worth = batch.size() * chunk_bytes_ / kWorthThread;
    const int team = static_cast<int>(std::clamp<std::size_t>(std::min(worth, batch.size()), 1, threads));
#pragma omp parallel for schedule(dynamic) num_threads(team)
    for (std::size_t i = 0; i < batch.size(); ++i) {
      try {
        // A copy of its own: another process can still write to the buffer.
        decoded[i].assign(stored[i].begin(), stored[i].end());
        faults[i] = decode(batch[i].skipped, decoded[i]);
        if (!faults[i]) copy_overlap(decoded[i].data(), places[i], start, count, out);
        if (!in_part(places[i])) std::vector<std::byte>().swap(decoded[i]);
      } catch (const std::bad_alloc&) {
        faults[i] = "needs more memory than there is";
      }
    }
    for (std::size_t i = 0; i < batch.size(); ++i) {
      if (faults[i]) {
        throw InputError("{}: the chunk at {} {}; the file is damaged", dataset_.where(),
                         to_string(places[i]), faults[i]);
      }
      keep(places[i], std::move(decoded[i]));
    }
    next += batch.size();
  }
  cache_ = std::move(kept);
}

// Undoes the filters, last first. Returns what is wrong, or null; `bytes` is then one chunk.
const char* BoxReader::decode(std::uint32_t skipped, std::vector<std::byte>& bytes) const {
  const std::vector<Filter>& filters = dataset_.info().filters;
  const auto applied = [&](std::size_t i) { return (skipped >> i & 1u) == 0; };
  std::vector<std::byte> before;
  for (std::size_t i = filters.size(); i-- > 0;) {
    if (!applied(i)) continue;
    if (filters[i].kind == FilterKind::fletcher32) {
      if (bytes.size() < kChecksumBytes) return "is too short for its checksum";
      const std::size_t size = bytes.size() - kChecksumBytes;
      if (fletcher32(bytes.data(), size) != little_endian32(bytes.data() + size)) {
        return "does not match its fletcher32 checksum";
      }
      bytes.resize(size);
    } else if (filters[i].kind == FilterKind::deflate) {
      std::size_t size = chunk_bytes_;
      for (std::size_t j = 0; j < i; ++j) {
        if (filters[j].kind == FilterKind::fletcher32 && applied(j)) size += kChecksumBytes;
      }
      before.resize(size);
      if (!inflate_exactly(bytes, before)) return "does not inflate to its size";
      bytes.swap(before);
    } else {
      before.resize(bytes.size());
      unshuffle(bytes, filters[i].element_bytes, before.data());
      bytes.swap(before);
    }
  }
  return bytes.size() == chunk_bytes_ ? nullptr : "is not of its size";
}

// The part of the chunk at `at` that the box holds, run by run along the last axis.
void BoxReader::copy_overlap(const std::byte* chunk, const Extents& at, const Extents& start,
                             const Extents& count, std::byte* out) const {
  const std::size_t rank = chunk_.size();
  Extents begin(rank), end(rank);
  for (std::size_t a = 0; a < rank; ++a) {
    begin[a] = std::max(at[a], start[a]);
    end[a] = std::min(at[a] + chunk_[a], start[a] + count[a]);
  }
  const std::size_t run = (end[rank - 1] - begin[rank - 1]) * element_bytes_;
  Extents place = begin;
  for (bool more = true; more;) {
    std::size_t from = 0, to = 0;
    for (std::size_t a = 0; a < rank; ++a) {
      from = from * chunk_[a] + place[a] - at[a];
      to = to * count[a] + place[a] - start[a];
    }
    std::memcpy(out + to * element_bytes_, chunk + from * element_bytes_, run);
    more = false;
    for (std::size_t a = rank - 1; a-- > 0 && !more;) {
      more = ++place[a] < end[a];
      if (!more) place[a] = begin[a];
    }
  }
}

}  // namespace tq::hdf5
