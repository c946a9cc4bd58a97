// Causal attention within documents and its gradients, bfloat16, on a CPU with matrix units (AMX).
//
// PyTorch's kernel goes over the keys with fused blocks as well (arXiv:2205.14135), but its backward pass does not use those units. Here
// every product does. Scores are made transposed, keys by queries: a column is a query, so that maxima, sums and masks are vectors
// of sixteen queries, and what the next product reads lies as it must without a transposition:
//
//   forward    S' = K Q'              O' += V' P'
//   backward   S' = K Q', D' = V dO'  dV += P' dO, dK += G' Q, dQ' += K' G'     with G = P (D - delta)
//
// A head of keys with the heads of queries that share it is one thread's work from beginning to end, in one order: the bits
// depend on nothing else. Products sum in float32; P and G are rounded to bfloat16 for theirs.
//
// Shapes: B rows, T tokens, H query heads, K key heads, E head size (a multiple of 32). `first` says for each token where its
// document begins; a query sees the keys from there to itself.

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "tiles.h"
#include "vectors.h"

namespace {

constexpr int64_t KEYS = 64, QUERIES = 64;  // of a block: its scores stay near

// ---- how the products read a matrix: from (T, E) with any distance between rows, filled up with zeros to `padded` rows ------------

// Sixteen numbers of each of two rows as pairs; row `n` and those after it are zeros.
inline Whole pairs(const bf16* from, int64_t row, int64_t t, int64_t n) {
  const auto widened = [&](int64_t at) {
    return at < n ? __builtin_convertvector(*reinterpret_cast<const Half*>(from + at * row), Whole) : Whole{};
  };
  return widened(t) | widened(t + 1) << 16;
}

void copy_rows(bf16* to, const bf16* from, int64_t row, int64_t n, int64_t padded, int64_t e) {
  for (int64_t t = 0; t < n; ++t) std::memcpy(to + t * e, from + t * row, e * sizeof(bf16));
  std::memset(to + n * e, 0, (padded - n) * e * sizeof(bf16));
}

// (E, padded): the transposed.
void transpose(bf16* to, const bf16* from, int64_t row, int64_t n, int64_t padded, int64_t e) {
  for (int64_t feature = 0; feature < e; feature += LANES)
    for (int64_t t = 0; t < padded; t += 2 * LANES) {
      Whole block[LANES];
      for (int64_t i = 0; i < LANES; ++i) block[i] = pairs(from + feature, row, t + 2 * i, n);
      turn(block);
      for (int64_t i = 0; i < LANES; ++i) std::memcpy(to + (feature + i) * padded + t, block + i, sizeof block[i]);
    }
}

// (E / 2, padded, 2): the transposed as pairs of features.
void pair_features(bf16* to, const bf16* from, int64_t row, int64_t n, int64_t padded, int64_t e) {
  for (int64_t feature = 0; feature < e; feature += 2 * LANES)
    for (int64_t t = 0; t < padded; t += LANES) {
      Whole block[LANES] = {};
      for (int64_t i = 0; i < std::min<int64_t>(LANES, n - t); ++i)
        std::memcpy(block + i, from + (t + i) * row + feature, sizeof block[i]);
      turn(block);
      for (int64_t i = 0; i < LANES; ++i) std::memcpy(to + (feature + 2 * i) * padded + 2 * t, block + i, sizeof block[i]);
    }
}

// (padded / 2, E, 2): pairs of tokens.
void pair_tokens(bf16* to, const bf16* from, int64_t row, int64_t n, int64_t padded, int64_t e) {
  for (int64_t t = 0; t < padded; t += 2)
    for (int64_t feature = 0; feature < e; feature += LANES) {
      const Whole two = pairs(from + feature, row, t, n);
      std::memcpy(to + t * e + 2 * feature, &two, sizeof two);
    }
}

// From (E, …), sums of `n` tokens, to (T, E): the transposed, rounded. What is read ends with a whole vector of tokens.
template <class Factor>
void write_down(bf16* to, int64_t row, const float* from, int64_t from_row, int64_t n, int64_t e, Factor factor) {
  for (int64_t t = 0; t < n; t += LANES)
    for (int64_t feature = 0; feature < e; feature += LANES) {
      Whole block[LANES];
      for (int64_t i = 0; i < LANES; ++i) block[i] = (Whole)(load(from + (feature + i) * from_row + t) * factor(t));
      turn(block);
      for (int64_t i = 0; i < std::min<int64_t>(LANES, n - t); ++i) round_to(to + (t + i) * row + feature, (Vector)block[i]);
    }
}

// ---- blocks -------------------------------------------------------------------------------------------------------------------

inline Whole lanes(int64_t from) {
  Whole numbers;
  for (int lane = 0; lane < LANES; ++lane) numbers[lane] = static_cast<int32_t>(from) + lane;
  return numbers;
}

struct Sizes {
  int64_t n_tokens, padded, e, n_groups;
  float scale;
};

// What of a block's scores a query does not see, to minus infinity.
void hide(float* scores, const int32_t* first, int64_t key, int64_t query) {
  for (int64_t m = 0; m < QUERIES; m += LANES) {
    Whole begin;
    std::memcpy(&begin, first + query + m, sizeof begin);
    const Whole itself = lanes(query + m);
    for (int64_t n = 0; n < KEYS; ++n) {
      const Whole place = Whole{} + static_cast<int32_t>(key + n);
      const Whole seen = (place >= begin) & (place <= itself);
      float* at = scores + n * QUERIES + m;
      store(at, seen ? load(at) : all(-INFINITY));
    }
  }
}

// Whether all queries of a block see all of its keys. `first` never falls, so the last query's document begins last.
bool sees_all(const int32_t* first, int64_t key, int64_t query) {
  return key + KEYS - 1 <= query && first[query + QUERIES - 1] <= key;
}

// ---- forward ------------------------------------------------------------------------------------------------------------------

struct Forward {
  Forward(const Sizes& s, Memory& memory)
      : keys(memory.take<bf16>(s.padded * s.e)),
        values(memory.take<bf16>(s.padded * s.e)),
        queries(memory.take<bf16>(s.padded * s.e)),
        weights(memory.take<bf16>(KEYS * QUERIES)),
        scores(memory.take<float>(KEYS * QUERIES)),
        sums(memory.take<float>(s.e * QUERIES)) {}

  // Largest score so far of each query, and the sum of weights relative to it.
  alignas(64) float highest[QUERIES], total[QUERIES];
  bf16 *keys, *values, *queries, *weights;  // (T, E), (E, T), (E / 2, T, 2), (KEYS / 2, QUERIES, 2)
  float *scores, *sums;                     // (KEYS, QUERIES), (E, QUERIES)

  // Scores to weights, sixteen queries at a time; what was summed before shrinks where a larger score was met.
  void weigh(const Sizes& s) {
    for (int64_t m = 0; m < QUERIES; m += LANES) {
      const Vector before = load(highest + m);
      Vector most = before;
      for (int64_t n = 0; n < KEYS; ++n) most = larger(load(scores + n * QUERIES + m), most);
      const Vector base = (most == -INFINITY ? Vector{} : most) * s.scale;
      const Vector shrunk = power(before * s.scale - base);
      Vector sum = load(total + m) * shrunk;
      for (int64_t n = 0; n < KEYS; n += 2) {
        const Vector even = power(load(scores + n * QUERIES + m) * s.scale - base);
        const Vector odd = power(load(scores + (n + 1) * QUERIES + m) * s.scale - base);
        sum += even + odd;
        round_pairs(weights + n * QUERIES + 2 * m, even, odd);
      }
      store(highest + m, most);
      store(total + m, sum);
      bool same = true;
      for (int lane = 0; lane < LANES; ++lane) same &= shrunk[lane] == 1.0f;
      for (int64_t feature = 0; feature < s.e && !same; ++feature)
        store(sums + feature * QUERIES + m, load(sums + feature * QUERIES + m) * shrunk);
    }
  }

  // One block of queries against all the keys that any of them sees.
  void attend(const Sizes& s, const int32_t* first, int64_t query) {
    std::fill(highest, highest + QUERIES, -INFINITY);
    std::fill(total, total + QUERIES, 0.0f);
    std::memset(sums, 0, s.e * QUERIES * sizeof(float));
    const int64_t last = std::min(query + QUERIES, s.padded);
    for (int64_t key = first[query] / KEYS * KEYS; key < last; key += KEYS) {
      product(scores, QUERIES, keys + key * s.e, s.e, queries + 2 * query, s.padded, KEYS, QUERIES, s.e, false);
      if (!sees_all(first, key, query)) hide(scores, first, key, query);
      weigh(s);
      product(sums, QUERIES, values + key, s.padded, weights, QUERIES, s.e, QUERIES, KEYS, true);
    }
  }
};

// ---- backward -----------------------------------------------------------------------------------------------------------------

struct Backward {
  Backward(const Sizes& s, Memory& memory)
      : keys(memory.take<bf16>(s.padded * s.e)),
        values(memory.take<bf16>(s.padded * s.e)),
        keys_across(memory.take<bf16>(s.padded * s.e)),
        queries(memory.take<bf16>(s.padded * s.e)),
        queries_down(memory.take<bf16>(s.padded * s.e)),
        grads(memory.take<bf16>(s.padded * s.e)),
        grads_down(memory.take<bf16>(s.padded * s.e)),
        weights(memory.take<bf16>(KEYS * QUERIES)),
        slopes(memory.take<bf16>(KEYS * QUERIES)),
        slope_pairs(memory.take<bf16>(KEYS * QUERIES)),
        grad_queries(memory.take<float>(s.padded * s.e)),
        grad_keys(memory.take<float>(s.padded * s.e)),
        grad_values(memory.take<float>(s.padded * s.e)),
        scores(memory.take<float>(KEYS * QUERIES)),
        pulls(memory.take<float>(KEYS * QUERIES)),
        delta(memory.take<float>(s.padded)) {}

  bf16 *keys, *values, *keys_across;                  // (T, E), (T, E), (E, T)
  bf16 *queries, *queries_down, *grads, *grads_down;  // of features (E / 2, T, 2), of tokens (T / 2, E, 2); dO likewise
  bf16 *weights, *slopes, *slope_pairs;               // P' and G' (KEYS, QUERIES), G' (KEYS / 2, QUERIES, 2)
  float *grad_queries, *grad_keys, *grad_values;      // (E, T), (T, E), (T, E)
  float *scores, *pulls, *delta;                      // S' and D' (KEYS, QUERIES); (T)

  void slope(const Sizes& s, const float* lse, int64_t query) {
    for (int64_t m = 0; m < QUERIES; m += LANES) {
      const Vector base = load(lse + query + m), mean = load(delta + query + m);
      for (int64_t n = 0; n < KEYS; n += 2) {
        Vector slope[2];
        for (int64_t row = 0; row < 2; ++row) {
          const int64_t at = (n + row) * QUERIES + m;
          const Vector p = power(load(scores + at) * s.scale - base);
          slope[row] = p * (load(pulls + at) - mean);
          round_to(weights + at, p);
          round_to(slopes + at, slope[row]);
        }
        round_pairs(slope_pairs + n * QUERIES + 2 * m, slope[0], slope[1]);
      }
    }
  }

  // One head of queries: adds to the gradients of its keys and values, and makes its own.
  void pull(const Sizes& s, const int32_t* first, const float* lse) {
    std::memset(grad_queries, 0, s.padded * s.e * sizeof(float));
    for (int64_t key = 0; key < s.padded; key += KEYS)
      for (int64_t query = key / QUERIES * QUERIES; query < s.padded && first[query] < key + KEYS; query += QUERIES) {
        product(scores, QUERIES, keys + key * s.e, s.e, queries + 2 * query, s.padded, KEYS, QUERIES, s.e, false);
        product(pulls, QUERIES, values + key * s.e, s.e, grads + 2 * query, s.padded, KEYS, QUERIES, s.e, false);
        if (!sees_all(first, key, query)) hide(scores, first, key, query);
        slope(s, lse, query);
        product(grad_values + key * s.e, s.e, weights, QUERIES, grads_down + query * s.e, s.e, KEYS, s.e, QUERIES, true);
        product(grad_keys + key * s.e, s.e, slopes, QUERIES, queries_down + query * s.e, s.e, KEYS, s.e, QUERIES, true);
        product(grad_queries + query, s.padded, keys_across + key, s.padded, slope_pairs, QUERIES, s.e, QUERIES, KEYS, true);
      }
  }
};

// Arrays (B, T, heads, E), whose heads lie E apart; of q, k and v, how far rows and tokens lie apart is said. `first` (B, padded) int32,
// `padded` a multiple of 64: each token's, and beyond T the number of tokens. `memory`: what `lumi_attention_bytes` says, on 64 bytes.
struct Call {
  int64_t n_rows, n_tokens, padded, n_heads, n_kv_heads, e;
  int64_t q[2], k[2], v[2];
  int32_t n_threads;
};

// Scores are powers of two here: e^(q k / sqrt(E)) = 2^(q k scale).
Sizes sizes_of(const Call& c) {
  return {c.n_tokens, c.padded, c.e, c.n_heads / c.n_kv_heads, LOG2_E / std::sqrt(static_cast<float>(c.e))};
}

template <class Work>
int64_t bytes_of(const Call& call) {
  Memory counted{};
  Work(sizes_of(call), counted);
  return counted.used;
}

// The heads of keys shared out among the threads: `action` with the thread's work, and the row and number of a head.
template <class Work, class Action>
void each_head_of_keys(const Call& c, char* memory, Action action) {
#pragma omp parallel num_threads(c.n_threads)
  {
    [[maybe_unused]] const Tiles tiles;
    Memory mine{memory + omp_get_thread_num() * bytes_of<Work>(c)};
    Work work(sizes_of(c), mine);
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < c.n_rows * c.n_kv_heads; ++task) action(work, task / c.n_kv_heads, task % c.n_kv_heads);
  }
}

}  // namespace

extern "C" {

// What every thread needs of memory.
int64_t lumi_attention_bytes(const Call* call, int backward) {
  return backward ? bytes_of<Backward>(*call) : bytes_of<Forward>(*call);
}

// Whether this machine has the units and this process may use them.
int lumi_attention_ready() { return permitted(); }

// out (B, T, H, E) bfloat16; lse (B, H, padded) float32: the logarithm, to base two, of each query's
// sum of exponentials, and infinity beyond T.
void lumi_attend(const Call* call, const bf16* q, const bf16* k, const bf16* v, const int32_t* first, bf16* out, float* lse,
                 char* memory) {
  const Call c = *call;
  const Sizes s = sizes_of(c);
  each_head_of_keys<Forward>(c, memory, [&](Forward& work, int64_t b, int64_t group) {
    const int32_t* begin = first + b * c.padded;
    copy_rows(work.keys, k + b * c.k[0] + group * s.e, c.k[1], s.n_tokens, s.padded, s.e);
    transpose(work.values, v + b * c.v[0] + group * s.e, c.v[1], s.n_tokens, s.padded, s.e);
    for (int64_t head = group * s.n_groups; head < (group + 1) * s.n_groups; ++head) {
      pair_features(work.queries, q + b * c.q[0] + head * s.e, c.q[1], s.n_tokens, s.padded, s.e);
      float* sums = lse + (b * c.n_heads + head) * s.padded;
      for (int64_t query = 0; query < s.n_tokens; query += QUERIES) {
        work.attend(s, begin, query);
        const int64_t n = std::min(QUERIES, s.n_tokens - query);
        bf16* to = out + ((b * s.n_tokens + query) * c.n_heads + head) * s.e;
        write_down(to, c.n_heads * s.e, work.sums, QUERIES, n, s.e, [&](int64_t m) { return 1.0f / load(work.total + m); });
        for (int64_t m = 0; m < QUERIES; ++m)
          sums[query + m] = m < n ? work.highest[m] * s.scale + std::log2(work.total[m]) : INFINITY;
      }
    }
  });
}

// Gradients dq (B, T, H, E), dk and dv (B, T, K, E), contiguous, from `grad` of `out`, both (B, T, H, E) and contiguous.
void lumi_attend_backward(const Call* call, const bf16* q, const bf16* k, const bf16* v, const int32_t* first, const bf16* out,
                          const float* lse, const bf16* grad, bf16* dq, bf16* dk, bf16* dv, char* memory) {
  const Call c = *call;
  const Sizes s = sizes_of(c);
  const int64_t wide = c.n_heads * s.e, narrow = c.n_kv_heads * s.e;
  each_head_of_keys<Backward>(c, memory, [&](Backward& work, int64_t b, int64_t group) {
    const bf16 *keys = k + b * c.k[0] + group * s.e, *values = v + b * c.v[0] + group * s.e;
    copy_rows(work.keys, keys, c.k[1], s.n_tokens, s.padded, s.e);
    transpose(work.keys_across, keys, c.k[1], s.n_tokens, s.padded, s.e);
    copy_rows(work.values, values, c.v[1], s.n_tokens, s.padded, s.e);
    std::memset(work.grad_keys, 0, s.padded * s.e * sizeof(float));
    std::memset(work.grad_values, 0, s.padded * s.e * sizeof(float));
    for (int64_t head = group * s.n_groups; head < (group + 1) * s.n_groups; ++head) {
      const bf16 *queries = q + b * c.q[0] + head * s.e, *pulls = grad + b * s.n_tokens * wide + head * s.e;
      const bf16* result = out + b * s.n_tokens * wide + head * s.e;
      pair_features(work.queries, queries, c.q[1], s.n_tokens, s.padded, s.e);
      pair_tokens(work.queries_down, queries, c.q[1], s.n_tokens, s.padded, s.e);
      pair_features(work.grads, pulls, wide, s.n_tokens, s.padded, s.e);
      pair_tokens(work.grads_down, pulls, wide, s.n_tokens, s.padded, s.e);
      for (int64_t t = 0; t < s.padded; ++t) {
        Vector sum{};
        for (int64_t e = 0; e < s.e && t < s.n_tokens; e += LANES) sum += load(pulls + t * wide + e) * load(result + t * wide + e);
        work.delta[t] = ::sum(sum);
      }
      work.pull(s, first + b * c.padded, lse + (b * c.n_heads + head) * s.padded);
      bf16* to = dq + b * s.n_tokens * wide + head * s.e;
      write_down(to, wide, work.grad_queries, s.padded, s.n_tokens, s.e, [&](int64_t) { return all(s.scale / LOG2_E); });
    }
    for (int64_t t = 0; t < s.n_tokens; ++t)
      for (int64_t e = 0; e < s.e; e += LANES) {
        round_to(dk + (b * s.n_tokens + t) * narrow + group * s.e + e, load(work.grad_keys + t * s.e + e) * (s.scale / LOG2_E));
        round_to(dv + (b * s.n_tokens + t) * narrow + group * s.e + e, load(work.grad_values + t * s.e + e));
      }
  });
}
}
