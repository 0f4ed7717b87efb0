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

constexpr std::size_t kMaxStoredInFlight = std::size_t{64} << 20;
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

BoxReader::BoxReader(const Object& dataset, std::size_t cache_bytes)
    : extents_(extents_of(dataset)), cache_bytes_(cache_bytes) {
  const Handle type(H5Dget_type(dataset.id()), H5Tclose);
  const Handle creation(H5Dget_create_plist(dataset.id()), H5Pclose);
  element_bytes_ = H5Tget_size(type.get());
  const H5T_order_t order = H5Tget_order(type.get());
  swapped_ = element_bytes_ > 1 && order != H5Tget_order(H5T_NATIVE_FLOAT);
  if (H5Pget_layout(creation.get()) != H5D_CHUNKED) return;
  hsize_t sizes[H5S_MAX_RANK];
  const int rank = H5Pget_chunk(creation.get(), H5S_MAX_RANK, sizes);
  chunk_.assign(sizes, sizes + rank);
  chunk_bytes_ = element_bytes_ * product(chunk_);
  const int count = H5Pget_nfilters(creation.get());
  for (int i = 0; i < count; ++i) {
    unsigned flags = 0, config = 0, values[8] = {};
    std::size_t length = std::size(values);
    const H5Z_filter_t id = H5Pget_filter2(creation.get(), static_cast<unsigned>(i), &flags, &length, values,
                                           0, nullptr, &config);
    filters_.push_back({id, id == H5Z_FILTER_SHUFFLE && length > 0 ? values[0] : element_bytes_});
    if (filters_.back().element_bytes == 0) {
      throw InputError("{}: is shuffled by elements of 0 bytes; the file is damaged", dataset.where());
    }
  }
}

void BoxReader::read(const Object& dataset, const Extents& start, const Extents& count, std::byte* out) {
  if (product(count) == 0) return;
  chunk_.empty() ? read_with_hdf5(dataset, start, count, out) : read_chunks(dataset, start, count, out);
  if (swapped_) swap_bytes(out, product(count), element_bytes_);
}

// Contiguous and compact data go through no filter. The type in memory is the file's own: bytes as they are.
void BoxReader::read_with_hdf5(const Object& dataset, const Extents& start, const Extents& count,
                               std::byte* out) const {
  const std::vector<hsize_t> from(start.begin(), start.end()), size(count.begin(), count.end());
  const Handle type(H5Dget_type(dataset.id()), H5Tclose);
  const Handle space(H5Dget_space(dataset.id()), H5Sclose);
  // A scalar has no axes to select along.
  const Handle memory(size.empty() ? H5Screate(H5S_SCALAR)
                                   : H5Screate_simple(static_cast<int>(size.size()), size.data(), nullptr),
                      H5Sclose);
  const bool selected = size.empty() || H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, from.data(), nullptr,
                                                            size.data(), nullptr) >= 0;
  if (!selected || H5Dread(dataset.id(), type.get(), memory.get(), space.get(), H5P_DEFAULT, out) < 0) {
    throw InputError("{}: cannot read the data ({}); the file is damaged", dataset.where(),
                     take_error_stack());
  }
}

void BoxReader::read_chunks(const Object& dataset, const Extents& start, const Extents& count,
                            std::byte* out) {
  const std::size_t rank = chunk_.size();
  // The chunks that overlap the box, in the order of the file.
  std::vector<Extents> wanted;
  Extents first(rank), at(rank);
  for (std::size_t a = 0; a < rank; ++a) at[a] = first[a] = start[a] / chunk_[a] * chunk_[a];
  for (bool more = true; more;) {
    wanted.push_back(at);
    more = false;
    for (std::size_t a = rank; a-- > 0 && !more;) {
      at[a] += chunk_[a];
      more = at[a] < start[a] + count[a];
      if (!more) at[a] = first[a];
    }
  }

  Cache kept;
  std::size_t kept_bytes = 0;
  // Whether the next read may want the rest of this chunk.
  const auto in_part = [&](const Extents& place) {
    for (std::size_t a = 0; a < rank; ++a) {
      const std::size_t end = std::min(place[a] + chunk_[a], extents_[a]);
      if (place[a] < start[a] || end > start[a] + count[a]) return true;
    }
    return false;
  };
  const auto keep = [&](const Extents& place, std::vector<std::byte>&& bytes) {
    if (kept_bytes + chunk_bytes_ > cache_bytes_ || !in_part(place)) return;
    kept_bytes += chunk_bytes_;
    kept.emplace(place, std::move(bytes));
  };

  const std::size_t threads = std::clamp<std::size_t>(kMaxDecodedInFlight / (2 * chunk_bytes_), 1,
                                                      static_cast<std::size_t>(omp_get_max_threads()));
  const std::size_t most = std::max(4 * threads, kBatchBytes / chunk_bytes_);
  for (std::size_t next = 0; next < wanted.size();) {
    // HDF5 is used by this thread alone, for a batch of chunks; decoding needs no HDF5.
    std::vector<Stored> batch;
    std::size_t stored_bytes = 0;
    for (; next < wanted.size() && stored_bytes < kMaxStoredInFlight && batch.size() < most; ++next) {
      if (const auto cached = cache_.find(wanted[next]); cached != cache_.end()) {
        copy_overlap(cached->second.data(), wanted[next], start, count, out);
        keep(wanted[next], std::move(cached->second));
        continue;
      }
      batch.push_back(fetch(dataset, wanted[next]));
      stored_bytes += batch.back().bytes.size();
    }
    std::vector<const char*> faults(batch.size(), nullptr);
    std::vector<std::vector<std::byte>> decoded(batch.size());
    const std::size_t worth = batch.size() * chunk_bytes_ / kWorthThread;
    const int team = static_cast<int>(std::clamp<std::size_t>(std::min(worth, batch.size()), 1, threads));
#pragma omp parallel for schedule(dynamic) num_threads(team)
    for (std::size_t i = 0; i < batch.size(); ++i) {
      try {
        faults[i] = decode(batch[i], decoded[i]);
        if (!faults[i]) copy_overlap(decoded[i].data(), batch[i].at, start, count, out);
        if (!in_part(batch[i].at)) std::vector<std::byte>().swap(decoded[i]);
      } catch (const std::bad_alloc&) {
        faults[i] = "needs more memory than there is";
      }
    }
    for (std::size_t i = 0; i < batch.size(); ++i) {
      if (faults[i]) {
        throw InputError("{}: the chunk at {} {}; the file is damaged", dataset.where(),
                         to_string(batch[i].at), faults[i]);
      }
      keep(batch[i].at, std::move(decoded[i]));
    }
  }
  cache_ = std::move(kept);
}

BoxReader::Stored BoxReader::fetch(const Object& dataset, const Extents& at) const {
  const std::vector<hsize_t> offset(at.begin(), at.end());
  Stored stored{at, 0, {}};
  hsize_t size = 0;
  if (H5Dget_chunk_storage_size(dataset.id(), offset.data(), &size) < 0 || size == 0) {
    throw InputError("{}: has no chunk at {}; the file is incomplete or damaged", dataset.where(),
                     to_string(at));
  }
  // Deflate stores what it cannot shrink in blocks of at most 5 bytes more each 16 KiB, in a frame of 6.
  if (size > chunk_bytes_ + chunk_bytes_ / 1024 + 64) {
    throw InputError("{}: the chunk at {} is stored in {} bytes, more than its content; the file is damaged",
                     dataset.where(), to_string(at), size);
  }
  stored.bytes.resize(size);
  if (H5Dread_chunk(dataset.id(), H5P_DEFAULT, offset.data(), &stored.skipped, stored.bytes.data()) < 0) {
    throw InputError("{}: cannot read the chunk at {} ({}); the file is damaged", dataset.where(),
                     to_string(at), take_error_stack());
  }
  return stored;
}

// Undoes the filters, last first. Returns what is wrong, or null; `bytes` is then one chunk.
const char* BoxReader::decode(const Stored& stored, std::vector<std::byte>& bytes) const {
  const auto applied = [&](std::size_t i) { return (stored.skipped >> i & 1u) == 0; };
  bytes = stored.bytes;
  std::vector<std::byte> before;
  for (std::size_t i = filters_.size(); i-- > 0;) {
    if (!applied(i)) continue;
    if (filters_[i].id == H5Z_FILTER_FLETCHER32) {
      if (bytes.size() < kChecksumBytes) return "is too short for its checksum";
      const std::size_t size = bytes.size() - kChecksumBytes;
      if (fletcher32(bytes.data(), size) != little_endian32(bytes.data() + size)) {
        return "does not match its fletcher32 checksum";
      }
      bytes.resize(size);
    } else if (filters_[i].id == H5Z_FILTER_DEFLATE) {
      std::size_t size = chunk_bytes_;
      for (std::size_t j = 0; j < i; ++j) {
        if (filters_[j].id == H5Z_FILTER_FLETCHER32 && applied(j)) size += kChecksumBytes;
      }
      before.resize(size);
      if (!inflate_exactly(bytes, before)) return "does not inflate to its size";
      bytes.swap(before);
    } else {
      before.resize(bytes.size());
      unshuffle(bytes, filters_[i].element_bytes, before.data());
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
