// Cross-entropy of an output head, from states to gradients, bfloat16, on a CPU with matrix units (AMX).
//
// Logits are made transposed, pieces of the vocabulary by tokens: a column is a token, so that maxima and sums are vectors of sixteen
// tokens, and what the next products read lies as it must without a transposition:
//
//   L' = W X'        E' = 2^(L' - reference)        then, with each token's sum known,
//   S' = E' 2^(reference - sum) - target            dW += S' X, dX' += W' S'
//
// Tokens come in chunks, whose E' are kept in the meantime, in bfloat16; the reference is the largest logit met so far, another one for
// every 32 pieces, so that no exponential is taken twice and a number near its sum loses nothing. Each thread has a part of the
// vocabulary. Products sum in float32; the bits depend on the number of threads, by the order in which their parts of dX are added.

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <vector>

#include "tiles.h"
#include "vectors.h"

namespace {

constexpr int64_t UNIT = 32;        // pieces, tokens and features of a block: four tiles
constexpr int64_t BLOCK = 8;        // units of the vocabulary whose slopes meet W' together
constexpr int64_t CACHE = 1 << 20;  // bytes: what a thread goes over again and again should fit

// x (N, D), w (V, D) float32; targets (N) int64; scales (N) float32, or nothing for 1. To be written: nll (N) in nats, grad_x and grad_w,
// either of which may be nothing. `memory`: what `lumi_head_bytes` says, on 64 bytes.
struct Call {
  int64_t n, d, n_vocab;
  const float *x, *w;
  const int64_t* targets;
  const float* scales;
  float *nll, *grad_x, *grad_w;
  char* memory;
  int32_t n_threads;
};

int64_t units(int64_t n) { return (n + UNIT - 1) / UNIT; }

// Units of tokens of a chunk.
int64_t chunk_of(const Call& c) {
  const int64_t fitting = CACHE / (UNIT * (4 * UNIT * BLOCK + 8 * c.d));
  return std::min(std::clamp<int64_t>(fitting, 2, 32), units(c.n));
}

struct Chunk {  // what all threads share
  Chunk(const Call& c, Memory& memory)
      : n_units(chunk_of(c)),
        head(memory.take<bf16>(units(c.n_vocab) * UNIT * c.d)),
        head_across(memory.take<bf16>(units(c.n_vocab) * UNIT * c.d)),
        states(memory.take<bf16>(n_units * UNIT * c.d)),
        states_down(memory.take<bf16>(n_units * UNIT * c.d)),
        weights(memory.take<bf16>(units(c.n_vocab) * UNIT * n_units * UNIT)),
        reference(memory.take<float>(units(c.n_vocab) * n_units * UNIT)),
        chosen(memory.take<float>(n_units * UNIT)),
        lse(memory.take<float>(n_units * UNIT)),
        scales(memory.take<float>(n_units * UNIT)),
        order(memory.take<int32_t>(n_units * UNIT)),
        begins(memory.take<int32_t>(units(c.n_vocab) + 1)) {}

  int64_t n_units;
  bf16 *head, *head_across;      // tiles of W (V / 16, D / 32), of W' (D / 16, V / 32)
  bf16 *states, *states_down;    // pairs of features (N / 16, D / 32), of tokens (D / 16, N / 32)
  bf16* weights;                 // tiles of E', then of S' (V / 16, N / 32)
  float* reference;              // (V / 32, N)
  float *chosen, *lse, *scales;  // (N): target's logit; logarithm, to base two, of the sum of exponentials; factor of the slope
  int32_t *order, *begins;       // tokens by the unit that their target is in, and where each unit's begin
  const int64_t* targets = nullptr;
  float* nll = nullptr;

  // The tokens of a chunk by their targets' units, within one in order.
  void sort(const Call& c, int64_t first, int64_t n) {
    targets = c.targets + first;
    nll = c.nll + first;
    std::fill(begins, begins + units(c.n_vocab) + 1, 0);
    for (int64_t t = 0; t < n; ++t) ++begins[targets[t] / UNIT + 1];
    std::partial_sum(begins, begins + units(c.n_vocab) + 1, begins);
    std::vector<int32_t> next(begins, begins + units(c.n_vocab));
    for (int64_t t = 0; t < n; ++t) order[next[targets[t] / UNIT]++] = static_cast<int32_t>(t);
    for (int64_t t = 0; t < n_units * UNIT; ++t) scales[t] = t >= n ? 0.0f : c.scales ? c.scales[first + t] : 1.0f;
  }
};

struct Own {  // of a thread
  Own(const Call& c, int64_t n_units, Memory& memory)
      : pairs(memory.take<bf16>(n_units * UNIT * BLOCK * UNIT)),
        grad_states(memory.take<float>(n_units * UNIT * c.d)),
        most(memory.take<float>(n_units * UNIT)),
        total(memory.take<float>(n_units * UNIT)) {}
  bf16* pairs;          // tiles of S', pairs of pieces (N / 16, BLOCK)
  float* grad_states;   // its part of dX', blocks of 32 x 32 (D / 32, N / 32)
  float *most, *total;  // (N): of its part of the vocabulary the largest logit, and the sum of exponentials relative to it
};

// ---- how the products read a float32 matrix: 32 rows of D features, those from n on being zeros ---------------------------------

inline Vector row_of(const float* from, int64_t d, int64_t n, int64_t row, int64_t feature) {
  return row < n ? load(from + row * d + feature) : Vector{};
}

// Where it goes, turned or as it is.
void put(bf16* to, const bf16* tile, bool turned) {
  Whole rows[LANES];
  std::memcpy(rows, tile, sizeof rows);
  if (turned) turn(rows);
  std::memcpy(to, rows, sizeof rows);
}

// Two tiles, 16 rows each, of 32 features; turned, they are pairs of features for 16 columns.
void pack_rows(bf16* upper, bf16* lower, const float* from, int64_t d, int64_t n, int64_t feature, bool turned) {
  for (int64_t part = 0; part < 2; ++part) {
    alignas(64) bf16 tile[TILE];
    for (int64_t row = 0; row < LANES; ++row)
      for (int64_t half = 0; half < UNIT; half += LANES)
        round_to(tile + row * UNIT + half, row_of(from, d, n, part * LANES + row, feature + half));
    put(part ? lower : upper, tile, turned);
  }
}

// A tile of 16 features: pairs of the 32 rows; turned, it is 16 rows of features by the 32 columns that were rows.
void pack_pairs(bf16* to, const float* from, int64_t d, int64_t n, int64_t feature, bool turned) {
  alignas(64) bf16 tile[TILE];
  for (int64_t row = 0; row < UNIT; row += 2)
    round_pairs(tile + row * LANES, row_of(from, d, n, row, feature), row_of(from, d, n, row + 1, feature));
  put(to, tile, turned);
}

void pack_head(const Call& c, Chunk& chunk, int64_t unit) {
  const int64_t steps = c.d / UNIT, n_units = units(c.n_vocab), n = c.n_vocab - unit * UNIT;
  const float* from = c.w + unit * UNIT * c.d;
  for (int64_t step = 0; step < steps; ++step) {
    bf16* upper = chunk.head + (2 * unit * steps + step) * TILE;
    pack_rows(upper, upper + steps * TILE, from, c.d, n, step * UNIT, false);
  }
  for (int64_t tile = 0; c.grad_x && tile < c.d / LANES; ++tile)
    pack_pairs(chunk.head_across + (tile * n_units + unit) * TILE, from, c.d, n, tile * LANES, true);
}

void pack_states(const Call& c, Chunk& chunk, int64_t first, int64_t n, int64_t unit) {
  const int64_t steps = c.d / UNIT;
  const float* from = c.x + (first + unit * UNIT) * c.d;
  n -= unit * UNIT;
  for (int64_t step = 0; step < steps; ++step) {
    bf16* upper = chunk.states + (2 * unit * steps + step) * TILE;
    pack_rows(upper, upper + steps * TILE, from, c.d, n, step * UNIT, true);
  }
  for (int64_t tile = 0; c.grad_w && tile < c.d / LANES; ++tile)
    pack_pairs(chunk.states_down + (tile * chunk.n_units + unit) * TILE, from, c.d, n, tile * LANES, false);
}

// ---- between the products -----------------------------------------------------------------------------------------------------

// 32 x 32 logits, `n` of the pieces being some, to exponentials relative to the largest so far; what was summed before shrinks.
void weigh(const float* logits, int64_t n, bf16* upper, bf16* lower, float* most, float* total, float* reference) {
  for (int64_t m = 0; m < UNIT; m += LANES) {
    const Vector before = load(most + m);
    Vector highest = before;
    for (int64_t v = 0; v < n; ++v) highest = larger(load(logits + v * UNIT + m), highest);
    const Vector base = highest * LOG2_E;
    Vector sum = load(total + m) * power(before * LOG2_E - base);
    for (int64_t v = 0; v < UNIT; ++v) {
      const Vector e = v < n ? power(load(logits + v * UNIT + m) * LOG2_E - base) : Vector{};
      sum += e;
      round_to((v < LANES ? upper : lower) + v % LANES * UNIT + m, e);
    }
    store(most + m, highest);
    store(total + m, sum);
    store(reference + m, highest);
  }
}

// Exponentials of 32 x 32 to slopes, in place and as pairs of pieces in two tiles `pairs_row` apart.
void slope(bf16* upper, bf16* lower, const float* reference, const float* lse, const float* scales, bf16* pairs, int64_t pairs_row) {
  for (int64_t m = 0; m < UNIT; m += LANES) {
    const Vector factor = load(scales + m) * power(load(reference + m) * LOG2_E - load(lse + m));
    for (int64_t v = 0; v < UNIT; v += 2) {
      bf16* at = (v < LANES ? upper : lower) + v % LANES * UNIT + m;
      const Vector even = load(at) * factor, odd = load(at + UNIT) * factor;
      round_to(at, even);
      round_to(at + UNIT, odd);
      round_pairs(pairs + m / LANES * pairs_row + v * LANES, even, odd);
    }
  }
}

// ---- a thread's part of the vocabulary ------------------------------------------------------------------------------------------

struct Part {
  const Call& c;
  Chunk& chunk;
  Own& own;
  int64_t first, last;  // units of the vocabulary
  int64_t n_units;      // of tokens in this chunk

  bf16* tile(int64_t unit, int64_t half, int64_t tokens) const {
    return chunk.weights + ((2 * unit + half) * chunk.n_units + tokens) * TILE;
  }

  void weigh_all() {
    std::fill(own.most, own.most + n_units * UNIT, -INFINITY);
    std::fill(own.total, own.total + n_units * UNIT, 0.0f);
    const int64_t steps = c.d / UNIT;
    alignas(64) float logits[UNIT * UNIT];
    for (int64_t unit = first; unit < last; ++unit) {
      const bf16* rows = chunk.head + 2 * unit * steps * TILE;
      int32_t next = chunk.begins[unit];
      for (int64_t t = 0; t < n_units; ++t) {
        const bf16* columns = chunk.states + 2 * t * steps * TILE;
        product(logits, UNIT, {rows, rows + steps * TILE}, {columns, columns + steps * TILE}, steps, false);
        for (; next < chunk.begins[unit + 1] && chunk.order[next] < (t + 1) * UNIT; ++next) {
          const int64_t token = chunk.order[next], target = chunk.targets[token];
          chunk.chosen[token] = logits[target % UNIT * UNIT + token % UNIT];
        }
        const int64_t n = std::min(UNIT, c.n_vocab - unit * UNIT), at = t * UNIT;
        float* reference = chunk.reference + unit * chunk.n_units * UNIT + at;
        weigh(logits, n, tile(unit, 0, t), tile(unit, 1, t), own.most + at, own.total + at, reference);
      }
    }
  }

  // Slopes of a unit, the `place`-th of a block.
  void slope_unit(int64_t unit, int64_t place) {
    const float* reference = chunk.reference + unit * chunk.n_units * UNIT;
    for (int64_t t = 0; t < n_units; ++t) {
      const int64_t at = t * UNIT;
      bf16* pairs = own.pairs + (2 * t * BLOCK + place) * TILE;
      slope(tile(unit, 0, t), tile(unit, 1, t), reference + at, chunk.lse + at, chunk.scales + at, pairs, BLOCK * TILE);
    }
    for (int32_t at = chunk.begins[unit]; at < chunk.begins[unit + 1]; ++at) {  // where nothing was rounded
      const int64_t token = chunk.order[at], piece = chunk.targets[token] % UNIT;
      bf16 there[LANES];
      round_to(there, all(chunk.scales[token] * std::expm1(-chunk.nll[token])));
      tile(unit, piece / LANES, token / UNIT)[piece % LANES * UNIT + token % UNIT] = there[0];
      bf16* pairs = own.pairs + (token / LANES * BLOCK + place) * TILE;
      pairs[piece / 2 * UNIT + token % LANES * 2 + piece % 2] = there[0];
    }
  }

  // A unit's slopes by the states.
  void pull_head(int64_t unit, bool add) {
    const int64_t n = std::min(UNIT, c.n_vocab - unit * UNIT);
    const bf16* const slopes[2] = {tile(unit, 0, 0), tile(unit, 1, 0)};
    for (int64_t f = 0; f < c.d; f += UNIT) {
      const bf16* states = chunk.states_down + f / LANES * chunk.n_units * TILE;
      const bf16* const columns[2] = {states, states + chunk.n_units * TILE};
      float* to = c.grad_w + unit * UNIT * c.d + f;
      if (n == UNIT) {
        product(to, c.d, slopes, columns, n_units, add);
        continue;
      }
      alignas(64) float block[UNIT * UNIT];
      product(block, UNIT, slopes, columns, n_units, false);
      for (int64_t v = 0; v < n; ++v)
        for (int64_t m = 0; m < UNIT; m += LANES) {
          float* at = to + v * c.d + m;
          store(at, add ? load(at) + load(block + v * UNIT + m) : load(block + v * UNIT + m));
        }
    }
  }

  // The head by the slopes of a block.
  void pull_states(int64_t unit, int64_t n, bool add) {
    for (int64_t f = 0; f < c.d / UNIT; ++f) {
      const bf16* head = chunk.head_across + (2 * f * units(c.n_vocab) + unit) * TILE;
      for (int64_t t = 0; t < n_units; ++t) {
        const bf16* slopes = own.pairs + 2 * t * BLOCK * TILE;
        float* block = own.grad_states + (f * chunk.n_units + t) * UNIT * UNIT;
        product(block, UNIT, {head, head + units(c.n_vocab) * TILE}, {slopes, slopes + BLOCK * TILE}, n, add);
      }
    }
  }

  void pull_all(bool is_first_chunk) {
    if (first == last) std::fill(own.grad_states, own.grad_states + chunk.n_units * UNIT * c.d, 0.0f);
    for (int64_t block = first; block < last; block += BLOCK) {
      const int64_t n = std::min(BLOCK, last - block);
      for (int64_t unit = block; unit < block + n; ++unit) {
        slope_unit(unit, unit - block);
        if (c.grad_w) pull_head(unit, !is_first_chunk);
      }
      if (c.grad_x) pull_states(block, n, block > first);
    }
  }
};

// ---- what the threads have found, put together --------------------------------------------------------------------------------

// 32 tokens of a chunk: sums over the whole vocabulary, and nll.
void finish(const Chunk& chunk, const std::vector<Own>& owns, int64_t n_threads, int64_t n, int64_t unit) {
  for (int64_t t = unit * UNIT; t < (unit + 1) * UNIT; ++t) {
    float most = -INFINITY, total = 0.0f;
    for (int64_t k = 0; k < n_threads; ++k) most = std::max(most, owns[k].most[t]);
    for (int64_t k = 0; k < n_threads; ++k) total += owns[k].total[t] * std::exp(owns[k].most[t] - most);
    chunk.lse[t] = most * LOG2_E + std::log2(total);
    if (t < n) chunk.nll[t] = (most - chunk.chosen[t]) + std::log(total);
  }
}

// 32 tokens of a chunk: gradients of their states.
void write_states(const Call& c, const Chunk& chunk, const std::vector<Own>& owns, int64_t n_threads, int64_t first, int64_t n,
                  int64_t unit) {
  for (int64_t f = 0; f < c.d; f += LANES)
    for (int64_t m = 0; m < UNIT; m += LANES) {
      Whole block[LANES];
      for (int64_t i = 0; i < LANES; ++i) {
        Vector sum{};
        const int64_t at = (f / UNIT * chunk.n_units + unit) * UNIT * UNIT + (f % UNIT + i) * UNIT + m;
        for (int64_t k = 0; k < n_threads; ++k) sum += load(owns[k].grad_states + at);
        block[i] = (Whole)sum;
      }
      turn(block);
      const int64_t token = unit * UNIT + m;
      for (int64_t i = 0; i < std::min<int64_t>(LANES, n - token); ++i)
        store(c.grad_x + (first + token + i) * c.d + f, (Vector)block[i]);
    }
}

}  // namespace

extern "C" {

// Whether this machine has the units and this process may use them.
int lumi_head_ready() { return permitted(); }

int64_t lumi_head_bytes(const Call* call) {
  Memory counted{};
  const Chunk chunk(*call, counted);
  for (int32_t thread = 0; thread < call->n_threads; ++thread) Own(*call, chunk.n_units, counted);
  return counted.used;
}

void lumi_head_loss(const Call* call) {
  const Call c = *call;
  Memory memory{c.memory};
  Chunk chunk(c, memory);
  std::vector<Own> owns;
  for (int32_t thread = 0; thread < c.n_threads; ++thread) owns.emplace_back(c, chunk.n_units, memory);
#pragma omp parallel num_threads(c.n_threads)
  {
    [[maybe_unused]] const Tiles tiles;
    const int64_t n_threads = omp_get_num_threads(), me = omp_get_thread_num(), n_vocab_units = units(c.n_vocab);
#pragma omp for
    for (int64_t unit = 0; unit < n_vocab_units; ++unit) pack_head(c, chunk, unit);
    for (int64_t first = 0; first < c.n; first += chunk.n_units * UNIT) {
      const int64_t n = std::min(chunk.n_units * UNIT, c.n - first);
      Part part{c, chunk, owns[me], n_vocab_units * me / n_threads, n_vocab_units * (me + 1) / n_threads, units(n)};
#pragma omp single
      chunk.sort(c, first, n);
#pragma omp for
      for (int64_t unit = 0; unit < units(n); ++unit) pack_states(c, chunk, first, n, unit);
      part.weigh_all();
#pragma omp barrier
#pragma omp for
      for (int64_t unit = 0; unit < units(n); ++unit) finish(chunk, owns, n_threads, n, unit);
      if (!c.grad_x && !c.grad_w) continue;
      part.pull_all(first == 0);
#pragma omp barrier
#pragma omp for
      for (int64_t unit = 0; unit < (c.grad_x ? units(n) : 0); ++unit) write_states(c, chunk, owns, n_threads, first, n, unit);
    }
  }
}
}
