#include "datasets/capture_corpus.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <limits>

#include "core/error.h"
#include "datasets/hdf5.h"

namespace tq {
namespace {

// What keeps `other` from being one corpus with `first`; empty: nothing.
std::string difference(const CaptureInfo& first, const CaptureInfo& other) {
  const auto line = [](std::string_view what, const auto& mine, const auto& theirs) {
    return fmt::format("has {} {} where the first has {}", what, mine, theirs);
  };
  if (other.num_layers != first.num_layers) return line("num_layers", other.num_layers, first.num_layers);
  if (other.num_kv_heads != first.num_kv_heads) {
    return line("num_kv_heads", other.num_kv_heads, first.num_kv_heads);
  }
  if (other.num_q_heads != first.num_q_heads)
    return line("num_q_heads", other.num_q_heads, first.num_q_heads);
  if (other.key_basis != first.key_basis) return line("key_basis", other.key_basis, first.key_basis);
  if (other.softmax_scale != first.softmax_scale) {
    return line("softmax_scale", other.softmax_scale.value_or(0), first.softmax_scale.value_or(0));
  }
  if (other.model != first.model) {
    return line("model", hdf5::one_line(other.model), hdf5::one_line(first.model));
  }
  for (std::size_t i = 0; i < first.layers.size(); ++i) {
    const LayerInfo &mine = other.layers[i], &theirs = first.layers[i];
    if (mine.head_dim != theirs.head_dim) {
      return line(fmt::format("in layer {} head_dim", i), mine.head_dim, theirs.head_dim);
    }
    if (mine.has_k != theirs.has_k || mine.has_v != theirs.has_v || mine.has_q != theirs.has_q ||
        mine.has_k_residual != theirs.has_k_residual) {
      return fmt::format("has in layer {} other tensors than the first", i);
    }
  }
  return "";
}

// Of a file's tokens and queries.
std::int32_t largest_sequence_id(CaptureReader& reader) {
  constexpr std::size_t kBlock = std::size_t{1} << 20;
  std::int32_t largest = 0;
  std::vector<std::int32_t> ids;
  for (std::size_t begin = 0; begin < reader.info().tokens; begin += kBlock) {
    ids.resize(std::min(kBlock, reader.info().tokens - begin));
    reader.read_sequence_ids(begin, ids.size(), ids.data());
    largest = std::max(largest, *std::max_element(ids.begin(), ids.end()));
  }
  for (const std::int32_t id : reader.query_sequence_ids()) largest = std::max(largest, id);
  return largest;
}

}  // namespace

CaptureCorpus::CaptureCorpus(const std::vector<std::string>& paths, Trust trust) {
  std::int64_t next_sequence = 0;
  for (std::size_t i = 0; i < paths.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      std::error_code missing;
      if (std::filesystem::equivalent(paths[i], paths[j], missing)) {
        throw UsageError("{}: stands twice among the captures", paths[i]);
      }
    }
    CaptureReader reader(paths[i], trust);
    const CaptureInfo& info = reader.info();
    if (i == 0) {
      info_ = info;
      info_.tokens = info_.query_tokens = 0;
      for (LayerInfo& layer : info_.layers) layer.stored_bytes = 0;
    } else if (const std::string what = difference(info_, info); !what.empty()) {
      throw InputError("{}: {}; the files of a corpus are of one model", hdf5::one_line(paths[i]), what);
    }
    path_ += (i == 0 ? "" : ", ") + paths[i];
    const std::int64_t after = next_sequence + largest_sequence_id(reader) + 1;
    if (after > std::numeric_limits<std::int32_t>::max()) {
      throw InputError("{}: the corpus has more sequence ids than 32 bits hold", hdf5::one_line(paths[i]));
    }
    for (const std::int32_t position : reader.query_positions()) query_positions_.push_back(position);
    for (const std::int32_t id : reader.query_sequence_ids()) {
      query_sequence_ids_.push_back(static_cast<std::int32_t>(next_sequence + id));
    }
    const std::size_t first_token = info_.tokens, first_query = info_.query_tokens;
    info_.tokens += info.tokens;
    info_.query_tokens += info.query_tokens;
    for (std::size_t layer = 0; layer < info_.layers.size(); ++layer) {
      info_.layers[layer].stored_bytes += info.layers[layer].stored_bytes;
    }
    files_.push_back({std::move(reader), first_token, first_query, static_cast<std::int32_t>(next_sequence)});
    next_sequence = after;
  }
}

std::size_t CaptureCorpus::preferred_rows(int layer, Tensor tensor) const {
  std::size_t rows = 1;
  for (const File& file : files_) rows = std::max(rows, file.reader.preferred_rows(layer, tensor));
  return rows;
}

template <typename Part>
void CaptureCorpus::for_each_file(bool queries, std::size_t begin, std::size_t count, const Part& part) {
  for (File& file : files_) {
    const std::size_t first = queries ? file.first_query : file.first_token;
    const std::size_t rows = queries ? file.reader.info().query_tokens : file.reader.info().tokens;
    const std::size_t from = std::max(begin, first), to = std::min(begin + count, first + rows);
    if (from < to) part(file, from - first, to - from, from - begin);
  }
}

void CaptureCorpus::read(int layer, Tensor tensor, std::size_t begin, std::size_t count, float* out) {
  const bool queries = tensor == Tensor::q;
  const auto heads = static_cast<std::size_t>(queries ? info_.num_q_heads : info_.num_kv_heads);
  const auto d = static_cast<std::size_t>(info_.layers.at(static_cast<std::size_t>(layer)).head_dim);
  std::vector<float> rows;
  for_each_file(queries, begin, count, [&](File& file, std::size_t from, std::size_t part, std::size_t done) {
    if (part == count) return file.reader.read(layer, tensor, from, part, out);
    rows.resize(heads * part * d);
    file.reader.read(layer, tensor, from, part, rows.data());
    for (std::size_t head = 0; head < heads; ++head) {
      std::copy_n(rows.data() + head * part * d, part * d, out + (head * count + done) * d);
    }
  });
}

void CaptureCorpus::read_positions(std::size_t begin, std::size_t count, std::int32_t* out) {
  for_each_file(false, begin, count, [&](File& file, std::size_t from, std::size_t part, std::size_t done) {
    file.reader.read_positions(from, part, out + done);
  });
}

void CaptureCorpus::read_sequence_ids(std::size_t begin, std::size_t count, std::int32_t* out) {
  for_each_file(false, begin, count, [&](File& file, std::size_t from, std::size_t part, std::size_t done) {
    file.reader.read_sequence_ids(from, part, out + done);
    for (std::size_t i = 0; i < part; ++i) out[done + i] += file.first_sequence;
  });
}

}  // namespace tq
