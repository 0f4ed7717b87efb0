#pragma once

#include <cstddef>
#include <functional>
#include <iosfwd>
#include <vector>

#include "core/cache_layer.h"
#include "core/cache_policy.h"
#include "core/token_store.h"

namespace tq {

// What a cache stores, by parts, for the tokens it holds.
struct CacheBytes {
  std::size_t key_codes = 0;      // quantised tokens: codes and sign bits
  std::size_t key_scalars = 0;    // quantised tokens: scales and residual norms
  std::size_t value_codes = 0;    // quantised tokens
  std::size_t value_scalars = 0;  // quantised tokens: scales and zero points
  std::size_t sinks = 0;          // binary16
  std::size_t window = 0;         // binary16
  std::size_t exact_layers = 0;   // binary16
  std::size_t allocated = 0;      // whole pages and windows, as held in memory
  std::size_t total() const {     // without what is allocated ahead
    return key_codes + key_scalars + value_codes + value_scalars + sinks + window + exact_layers;
  }
  friend bool operator==(const CacheBytes&, const CacheBytes&) = default;
};

// A compressed key-value cache (arXiv:2504.19874, section 4): per layer and sequence, the first tokens and
// the newest ones as binary16, all others quantised once and never again. What is quantised is the binary16
// value. Coordinates beyond binary16 saturate at 65504. A NaN stays in its own vector, and in its group when
// a group-quantised value loses it (such codes have no NaN).
//
// Arrays are float32, row-major. Head h of q_heads reads KV head h / (q_heads / num_kv_heads); q_heads is any
// multiple of num_kv_heads. Results depend on neither the thread count nor the SIMD target nor on how the
// tokens were divided among calls. Const methods may run at the same time; changes exclude everything else.
//
// Every method throws std::out_of_range for a layer or sequence that does not exist, and UsageError for
// q_heads that num_kv_heads does not divide.
class KvCache {
 public:
  // Throws UsageError as validate() of a layer and of the policy does, for no layers, and for batch < 1.
  KvCache(std::vector<CacheLayer> layers, CachePolicy policy, int batch = 1);
  KvCache(KvCache&&) = default;
  KvCache& operator=(KvCache&&) = default;

  const CachePolicy& policy() const { return policy_; }
  int layers() const { return static_cast<int>(layers_.size()); }
  int batch() const { return batch_; }
  const CacheLayer& layer(int layer) const;

  // k, v: tokens x num_kv_heads x d, oldest first. prefill() is append() to a sequence that must be empty in
  // this layer, else UsageError. When memory runs out (std::bad_alloc) the cache is as it was.
  void prefill(int layer, int sequence, const float* k, const float* v, std::size_t tokens);
  void append(int layer, int sequence, const float* k, const float* v, std::size_t tokens = 1);

  std::size_t tokens(int layer, int sequence) const { return store(layer, sequence).tokens(); }
  // The stored bytes themselves, read-only.
  const TokenStore& store(int layer, int sequence) const { return stores_[index(layer, sequence)]; }

  // q: q_heads x d. out[h * tokens + t] = <q_h, k^_t>, not multiplied by a softmax scale.
  void scores(int layer, int sequence, const float* q, int q_heads, float* out) const;

  // out[h] = sum over t of p_ht v^_t (q_heads x d), p_h the softmax over all tokens, exact and quantised, of
  // softmax_scale <q_h, k^_t>; lse[h], where not null, the natural logarithm of sum exp(scaled scores). One
  // pass over the codes, which are never written out: memory does not grow with the tokens. Without tokens
  // out is 0 and lse -infinity. A scaled score that is NaN or reaches 1e30 makes NaN of its own head's out
  // and lse.
  void attend(int layer, int sequence, const float* q, int q_heads, float softmax_scale, float* out,
              float* lse = nullptr) const;
  // The same for every sequence of the layer, each over its own tokens. q, out: batch x q_heads x d; lse:
  // batch x q_heads.
  void attend_batch(int layer, const float* q, int q_heads, float softmax_scale, float* out,
                    float* lse = nullptr) const;

  // Appends the tokens one after the other; row t of out is what attend() gives right after token t, within
  // float32 rounding. Every page is decoded once for many queries, so a prompt takes a fraction of the time
  // that append() and attend() by turns would take. q, out: tokens x q_heads x d. A NaN among the new values
  // may also reach rows of out that are up to a page earlier. When memory runs out (std::bad_alloc) out is
  // undefined, and the cache is as it was or has all tokens.
  void append_and_attend(int layer, int sequence, const float* k, const float* v, std::size_t tokens,
                         const float* q, int q_heads, float softmax_scale, float* out);

  CacheBytes bytes_used() const;

  // Little-endian stream, version 1:
  //   "TQKVCACH", u32 version, u32 layers, u32 batch, i32 recent, sinks, flush_block;
  //   a layer: 32 bytes, fingerprint(CacheLayer); then a layer, a sequence: u64 tokens;
  //   a layer, a sequence: the content, as TokenStore::save writes it;
  //   32 bytes: SHA-256 of all before.
  // Throws SystemError when the stream fails.
  void save(std::ostream& stream) const;
  // Replaces the content of this cache, which must have the layers, policy and batch of the one that was
  // saved: attend() then gives the same bits. Throws InputError when the stream is damaged, truncated,
  // foreign, or of a cache made otherwise; the cache is then as it was. Memory grows with what has been read,
  // not with what the stream promises. Reads nothing beyond the digest.
  void restore(std::istream& stream);
  // Replaces one sequence of a layer by `tokens` tokens whose bytes `read` gives in the order of
  // TokenStore::save(): how a cache that lives elsewhere comes here. What `read` throws leaves it as it was.
  void restore_sequence(int layer, int sequence, std::size_t tokens,
                        const std::function<void(void*, std::size_t)>& read);

 private:
  std::size_t index(int layer, int sequence) const;
  std::size_t group_size(int layer, int q_heads) const;
  void attend_sequences(int layer, int first_sequence, int sequences, const float* q, int q_heads,
                        float softmax_scale, float* out, float* lse) const;

  std::vector<CacheLayer> layers_;
  CachePolicy policy_;
  int batch_;
  std::vector<TokenStore> stores_;  // layer * batch_ + sequence
};

}  // namespace tq
