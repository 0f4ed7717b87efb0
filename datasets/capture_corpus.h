#pragma once

#include <string>
#include <vector>

#include "datasets/capture.h"

namespace tq {

// Several captures of one model as one, their rows one after the other in the order of the files. Sequences
// of different files stay different sequences.
class CaptureCorpus final : public Capture {
 public:
  // Throws InputError as CaptureReader does, and where a file's model has another shape, key basis or softmax
  // scale than the first's, or other tensors; UsageError where a file stands there twice.
  explicit CaptureCorpus(const std::vector<std::string>& paths, Trust trust = Trust::none);

  const std::string& path() const override { return path_; }
  const CaptureInfo& info() const override { return info_; }
  std::size_t preferred_rows(int layer, Tensor tensor) const override;
  void read(int layer, Tensor tensor, std::size_t begin, std::size_t count, float* out) override;
  void read_positions(std::size_t begin, std::size_t count, std::int32_t* out) override;
  void read_sequence_ids(std::size_t begin, std::size_t count, std::int32_t* out) override;
  const std::vector<std::int32_t>& query_positions() const override { return query_positions_; }
  const std::vector<std::int32_t>& query_sequence_ids() const override { return query_sequence_ids_; }

 private:
  struct File {
    CaptureReader reader;
    std::size_t first_token, first_query;  // in the corpus
    std::int32_t first_sequence;           // added to the file's own sequence ids
  };
  // Calls part(file, begin in the file, count, rows done before) for the files that the rows lie in.
  template <typename Part>
  void for_each_file(bool queries, std::size_t begin, std::size_t count, const Part& part);

  std::string path_;  // the files' names
  CaptureInfo info_;  // the first's, with the rows and bytes of all
  std::vector<File> files_;
  std::vector<std::int32_t> query_positions_, query_sequence_ids_;
};

}  // namespace tq
