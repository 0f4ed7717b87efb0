#include "datasets/confined_storage.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <new>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>

#include "core/error.h"
#include "core/message.h"
#include "datasets/confined_process.h"

namespace tq::hdf5 {
namespace {

// Storage's functions, as messages name them.
enum class Call : std::uint8_t {
  open,
  is_group,
  has_child,
  child_names,
  attribute_count,
  has_attribute,
  string_attribute,
  int64_attribute,
  double_attribute,
  describe_dataset,
  read_box,
  read_chunks,
};

enum class Outcome : std::uint8_t { done, bad_input };

// The confined side: one file, opened by the first message.
class Server {
 public:
  explicit Server(std::shared_ptr<Buffer> buffer) : buffer_(std::move(buffer)) {}

  std::string answer(const std::string& message) {
    MessageWriter answer;
    try {
      MessageReader request(message);
      Call call{};
      request(call);
      return answer_call(call, request);
    } catch (const Error& error) {
      answer(Outcome::bad_input, std::string(error.what()));
    } catch (const std::bad_alloc&) {
      answer(Outcome::bad_input, path_ + ": needs more memory than reading a file may; the file is damaged");
    }
    return answer.bytes();
  }

 private:
  std::string answer_call(Call call, MessageReader& request) {
    switch (call) {
      case Call::open:
        request(path_);
        storage_.emplace(path_, buffer_);
        return result(true);
      case Call::is_group:
        return invoke(request, &Storage::is_group);
      case Call::has_child:
        return invoke(request, &Storage::has_child);
      case Call::child_names:
        return invoke(request, &Storage::child_names);
      case Call::attribute_count:
        return invoke(request, &Storage::attribute_count);
      case Call::has_attribute:
        return invoke(request, &Storage::has_attribute);
      case Call::string_attribute:
        return invoke(request, &Storage::string_attribute);
      case Call::int64_attribute:
        return invoke(request, &Storage::int64_attribute);
      case Call::double_attribute:
        return invoke(request, &Storage::double_attribute);
      case Call::describe_dataset:
        return invoke(request, &Storage::describe_dataset);
      case Call::read_box:
        return invoke(request, &Storage::read_box);
      case Call::read_chunks:
        return invoke(request, &Storage::read_chunks);
    }
    return {};
  }

  template <typename Value>
  static std::string result(const Value& value) {
    MessageWriter answer;
    answer(Outcome::done, value);
    return answer.bytes();
  }

  template <typename Value, typename... Parameters>
  std::string invoke(MessageReader& request, Value (Storage::*function)(Parameters...)) {
    std::tuple<std::decay_t<Parameters>...> arguments;
    std::apply(request, arguments);
    return result(std::apply(
        [&](const auto&... values) { return (static_cast<Storage&>(*storage_).*function)(values...); },
        arguments));
  }

  std::string path_;
  std::shared_ptr<Buffer> buffer_;
  std::optional<LocalStorage> storage_;
};

std::size_t bytes_of(ElementKind kind) {
  switch (kind) {
    case ElementKind::uint8:
      return 1;
    case ElementKind::float16:
    case ElementKind::bfloat16:
    case ElementKind::uint16:
      return 2;
    case ElementKind::float32:
    case ElementKind::int32:
      return 4;
    case ElementKind::float64:
      return 8;
    case ElementKind::other:
      break;
  }
  return 0;
}

class ConfinedStorage final : public Storage {
 public:
  explicit ConfinedStorage(const std::string& path)
      : path_(one_line(path)),
        process_([server = std::make_shared<Server>(buffer_)](const std::string& message) {
          return server->answer(message);
        }) {
    call<bool>(Call::open, path);
  }

  bool is_group(const std::string& path) override { return call<bool>(Call::is_group, path); }
  bool has_child(const std::string& group, const std::string& name) override {
    return call<bool>(Call::has_child, group, name);
  }
  std::vector<std::string> child_names(const std::string& group, std::size_t max_count) override {
    auto names = call<std::vector<std::string>>(Call::child_names, group, max_count);
    require(names.size() <= max_count);
    return names;
  }
  std::size_t attribute_count(const std::string& path) override {
    return call<std::size_t>(Call::attribute_count, path);
  }
  bool has_attribute(const std::string& path, const std::string& name) override {
    return call<bool>(Call::has_attribute, path, name);
  }
  std::string string_attribute(const std::string& path, const std::string& name) override {
    return call<std::string>(Call::string_attribute, path, name);
  }
  std::int64_t int64_attribute(const std::string& path, const std::string& name) override {
    return call<std::int64_t>(Call::int64_attribute, path, name);
  }
  double double_attribute(const std::string& path, const std::string& name) override {
    return call<double>(Call::double_attribute, path, name);
  }
  DatasetInfo describe_dataset(const std::string& path, std::size_t max_logical_bytes) override {
    auto info = call<DatasetInfo>(Call::describe_dataset, path, max_logical_bytes);
    require(is_consistent(info, max_logical_bytes));
    return info;
  }
  std::size_t read_box(const std::string& dataset, const Extents& start, const Extents& count) override {
    const auto bytes = call<std::size_t>(Call::read_box, dataset, start, count);
    require(bytes <= Buffer::kBytes);
    return bytes;
  }
  std::vector<StoredChunk> read_chunks(const std::string& dataset,
                                       const std::vector<Extents>& places) override {
    auto chunks = call<std::vector<StoredChunk>>(Call::read_chunks, dataset, places);
    require(!chunks.empty() && chunks.size() <= places.size());
    std::size_t left = Buffer::kBytes;
    for (const StoredChunk& chunk : chunks) {
      require(chunk.bytes <= left);
      left -= chunk.bytes;
    }
    return chunks;
  }

  std::span<const std::byte> buffer() const override { return buffer_->bytes(); }

 private:
  template <typename Value, typename... Arguments>
  Value call(Call function, const Arguments&... arguments) {
    MessageWriter request;
    request(function, arguments...);
    const std::string bytes = process_.ask(request.bytes(), path_);
    MessageReader answer(bytes);
    Outcome outcome{};
    std::string fault;
    Value value{};
    try {
      answer(outcome);
      outcome == Outcome::done ? answer(value) : answer(fault);
    } catch (const MessageError&) {
      require(false);
    }
    require(answer.empty());
    if (outcome != Outcome::done) throw InputError("{}", one_line(fault));
    return value;
  }

  // Of what only a process that the file has taken over answers.
  void require(bool holds) const {
    if (!holds) throw InputError("{}: the HDF5 library answers nonsense; the file is made to do harm", path_);
  }

  std::string path_;
  std::shared_ptr<Buffer> buffer_ = std::make_shared<Buffer>();
  ConfinedProcess process_;
};

}  // namespace

bool is_consistent(const DatasetInfo& info, std::size_t max_logical_bytes) {
  const auto bytes_within = [&](const Extents& extents, std::size_t most) {
    std::size_t bytes = info.element_bytes;
    for (const std::size_t extent : extents) {
      if (__builtin_mul_overflow(bytes, extent, &bytes)) return false;
    }
    return bytes <= most;
  };
  const bool chunk_fits =
      info.chunk.empty() || (info.chunk.size() == info.extents.size() &&
                             std::find(info.chunk.begin(), info.chunk.end(), 0u) == info.chunk.end() &&
                             bytes_within(info.chunk, kMaxChunkBytes));
  return (info.kind == ElementKind::other || info.element_bytes == bytes_of(info.kind)) && chunk_fits &&
         info.extents.size() <= H5S_MAX_RANK && bytes_within(info.extents, max_logical_bytes) &&
         info.filters.size() <= H5Z_MAX_NFILTERS &&
         std::all_of(info.filters.begin(), info.filters.end(), [](const Filter& filter) {
           return filter.kind <= FilterKind::fletcher32 &&
                  (filter.kind != FilterKind::shuffle || filter.element_bytes > 0);
         });
}

std::unique_ptr<Storage> open_storage(const std::string& path, Trust trust) {
#ifdef __SANITIZE_ADDRESS__
  // Where another thread allocates while the process forks, AddressSanitizer's allocator stays locked in the
  // child. So in that build, which nobody is served by, only the first thread's files are confined, and none
  // beside Open MPI's threads, which allocate at any time.
  if (gettid() != getpid() || std::getenv("OMPI_COMM_WORLD_SIZE") != nullptr) trust = Trust::full;
#endif
  if (trust == Trust::full) return std::make_unique<LocalStorage>(path, std::make_shared<Buffer>());
  return std::make_unique<ConfinedStorage>(path);
}

}  // namespace tq::hdf5
