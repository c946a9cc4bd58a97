// One decoding step of a small LLaMA decoder on a CPU: a further token in each of several rows, float32.
//
// A step of a small model is a few milliseconds; made of a hundred tensor operations, a third of that is their overhead. Here it
// is one call, whose threads meet five times a layer.
//
// Every number of a row is computed in one order that depends on nothing but the shape of the model: not on the other rows,
// the number of threads or who of them computes it. So a row has the same bits alone and in any batch.
//
// Shapes as in lumi/arch: D model, H query heads, K key heads, E head size, F feed-forward, V vocabulary. Matrices are
// (outputs, inputs); D, E and F are multiples of 16 (lumi/arch/native.py sees to it).

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
static inline void breathe() { _mm_pause(); }
#else
static inline void breathe() {}
#endif

namespace {

#if defined(__AVX512F__) && defined(__AVX512DQ__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
typedef float Vector __attribute__((vector_size(LANES * sizeof(float)), aligned(4)));

inline Vector load(const float* from) { return *reinterpret_cast<const Vector*>(from); }
inline void store(float* to, Vector v) { *reinterpret_cast<Vector*>(to) = v; }
inline Vector all(float value) { return Vector{} + value; }

// The sum of a vector's lanes: halves are added until one is left.
inline float sum(Vector v) {
  float total[LANES];
  store(total, v);
  for (int width = LANES / 2; width > 0; width /= 2)
    for (int lane = 0; lane < width; ++lane) total[lane] += total[lane + width];
  return total[0];
}

// The sums of four vectors at once, a third of the work of four by themselves.
inline void sum_four(const Vector* v, int stride, float* to) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
  const auto get = [&](int which) { return reinterpret_cast<__m512>(v[which * stride]); };
  const auto pair = [](__m512 a, __m512 b) { return _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)); };
  const __m512 first = pair(get(0), get(1)), second = pair(get(2), get(3));  // of each quarter: a b a b, c d c d
  const __m512 four = _mm512_add_ps(_mm512_shuffle_ps(first, second, 0x44), _mm512_shuffle_ps(first, second, 0xee));
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(four), _mm512_extractf32x8_ps(four, 1));
  _mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
#elif defined(__AVX2__)
  const auto get = [&](int which) { return reinterpret_cast<__m256>(v[which * stride]); };
  const __m256 four = _mm256_hadd_ps(_mm256_hadd_ps(get(0), get(1)), _mm256_hadd_ps(get(2), get(3)));
  _mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(four), _mm256_extractf128_ps(four, 1)));
#else
  for (int which = 0; which < 4; ++which) to[which] = sum(v[which * stride]);
#endif
}

// e^x for x <= 0 (Cephes: e^x = 2^n e^r with |r| <= ln 2 / 2, a polynomial for e^r); errors of about 1e-7, as of expf.
inline float exponential(float x) {
  x = std::max(x, -87.0f);
  const float n = __builtin_floorf(x * 1.44269504088896341f + 0.5f);
  const float r = x - n * 0.693359375f + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return p * power;
}

// Threads that run one function together and meet. They wait awake for a moment, since the next meeting is microseconds away, then
// give their core away, and between two steps they sleep.
class Team {
 public:
  explicit Team(int n) : n_(n) {
    for (int member = 1; member < n; ++member) threads_.emplace_back([this, member] { live(member); });
  }
  ~Team() {
    ended_ = true;
    call_.fetch_add(1);
    call_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  template <class Work>
  void run(Work& work) {
    work_ = [](void* with, int member) { (*static_cast<Work*>(with))(member); };
    with_ = &work;
    call_.fetch_add(1);
    call_.notify_all();
    work(0);
    meet();  // nobody still uses what the caller owns
  }
  void meet() {
    if (n_ == 1) return;
    const uint32_t before = meeting_.load();
    if (present_.fetch_add(1) + 1 == n_) {
      present_.store(0);
      meeting_.fetch_add(1);
      return;
    }
    for (int turn = 0; meeting_.load() == before; ++turn)
      if (turn < 4096) breathe(); else std::this_thread::yield();
  }
  const int n_;

 private:
  void live(int member) {
    for (uint32_t seen = 0;;) {
      for (int turn = 0; call_.load() == seen && turn < 20000; ++turn) breathe();
      call_.wait(seen);
      ++seen;  // a call ends with a meeting, so none is missed
      if (ended_) return;
      work_(with_, member);
      meet();
    }
  }
  std::vector<std::thread> threads_;
  std::atomic<uint32_t> call_{0}, meeting_{0};
  std::atomic<int> present_{0};
  std::atomic<bool> ended_{false};
  void (*work_)(void*, int) = nullptr;
  void* with_ = nullptr;
};

constexpr int OUTPUTS = 4;  // of a matrix, and
constexpr int ROWS = 4;     // rows that are computed at a time

// What a tile asks for while it computes, so that memory and arithmetic take turns at nothing: of the weights two blocks ahead, the
// lines of every `step`th output from `first` on. All tiles of a block ask for all of it together.
struct Ahead {
  const float* weight;
  int first, step;
};

// O outputs of R rows: acc[o][r] = sum over i of weight[o][i] x[r][i]. Every sum has an accumulator of its own, whatever O and R are.
template <int O, int R, class Take>
inline __attribute__((always_inline)) void tile(const float* weight, const float* x, int inputs, Ahead ahead, Take take) {
  Vector acc[O][R] = {};
  for (int i = 0; i < inputs; i += LANES) {
    for (int o = ahead.first; o < O; o += ahead.step) __builtin_prefetch(ahead.weight + o * static_cast<int64_t>(inputs) + i);
    Vector w[O];
    for (int o = 0; o < O; ++o) w[o] = load(weight + o * static_cast<int64_t>(inputs) + i);
    for (int r = 0; r < R; ++r) {
      const Vector v = load(x + r * static_cast<int64_t>(inputs) + i);
      for (int o = 0; o < O; ++o) acc[o][r] += w[o] * v;
    }
  }
  for (int r = 0; r < R; ++r) {
    float sums[O];
    if constexpr (O == 4) sum_four(&acc[0][r], R, sums);
    else sums[0] = sum(acc[0][r]);
    for (int o = 0; o < O; ++o) take(r, o, sums[o]);
  }
}

template <int O, class Take>
inline void rows(const float* weight, const float* x, int n, int inputs, int output, Take& take) {
  const int n_tiles = (n + ROWS - 1) / ROWS;
  for (int row = 0, number = 0; row < n; row += ROWS, ++number) {
    const float* mine = x + row * static_cast<int64_t>(inputs);
    const Ahead ahead{weight + 2 * O * static_cast<int64_t>(inputs), number, n_tiles};
    const auto put = [&](int r, int o, float value) { take(row + r, output + o, value); };
    switch (n - row) {
      case 1: tile<O, 1>(weight, mine, inputs, ahead, put); break;
      case 2: tile<O, 2>(weight, mine, inputs, ahead, put); break;
      case 3: tile<O, 3>(weight, mine, inputs, ahead, put); break;
      default: tile<O, ROWS>(weight, mine, inputs, ahead, put);
    }
  }
}

// take(row, output, value) for outputs [begin, end) of x (n, inputs) times a matrix (outputs, inputs).
template <class Take>
inline void product(const float* matrix, const float* x, int n, int inputs, int begin, int end, Take take) {
  int output = begin;
  for (; output + OUTPUTS <= end; output += OUTPUTS)
    rows<OUTPUTS>(matrix + output * static_cast<int64_t>(inputs), x, n, inputs, output, take);
  for (; output < end; ++output) rows<1>(matrix + output * static_cast<int64_t>(inputs), x, n, inputs, output, take);
}

struct Layer {
  const float *attention_norm, *qkv, *output, *mlp_norm, *gate_up, *down;
};

}  // namespace

extern "C" {

struct Shape {
  int32_t n_layers, d_model, n_heads, n_kv_heads, d_head, d_ff, vocab_size, most_rows;
  float norm_eps;
};

// Everything a step reads and writes that outlives it.
struct Model {
  Shape shape;
  std::vector<Layer> layers;
  const float *embedding, *norm, *head, *cos, *sin;  // cos, sin: (places, E / 2)
  Team team;
  std::vector<float> x, heads, read, hidden, normed, scores;
  std::vector<std::atomic<int>> taken;  // outputs of each product that somebody computes or has computed

  Model(const Shape& s, int n_threads)
      : shape(s),
        team(n_threads),
        x(static_cast<size_t>(s.most_rows) * s.d_model),
        heads(static_cast<size_t>(s.most_rows) * (s.n_heads + 2 * s.n_kv_heads) * s.d_head),
        read(static_cast<size_t>(s.most_rows) * s.n_heads * s.d_head),
        hidden(static_cast<size_t>(s.most_rows) * s.d_ff),
        normed(static_cast<size_t>(n_threads) * s.most_rows * s.d_model),
        taken(5 * s.n_layers + 1) {}
};

Model* lumi_model(const Shape* shape, const float* const* layers, const float* const* rest, int n_threads, int max_len) {
  auto* model = new (std::nothrow) Model(*shape, n_threads);
  if (!model) return nullptr;
  for (int layer = 0; layer < shape->n_layers; ++layer) {
    const float* const* w = layers + 6 * layer;
    model->layers.push_back({w[0], w[1], w[2], w[3], w[4], w[5]});
  }
  model->embedding = rest[0], model->norm = rest[1], model->head = rest[2], model->cos = rest[3], model->sin = rest[4];
  const int group = shape->n_heads / shape->n_kv_heads;
  model->scores.resize(static_cast<size_t>(n_threads) * group * (max_len + LANES));
  return model;
}

void lumi_forget(Model* model) { delete model; }
}

namespace {

class Step {
 public:
  Step(Model& m, int n, const int64_t* tokens, const int64_t* lengths, float* const* caches, int64_t cache_rows,
       int64_t max_len, float* logits)
      : m(m), s(m.shape), n(n), tokens(tokens), lengths(lengths), caches(caches), cache_rows(cache_rows), max_len(max_len),
        logits(logits) {
    for (auto& one : m.taken) one.store(0, std::memory_order_relaxed);
  }

  void operator()(int member) {
    const int D = s.d_model, n_outputs = (s.n_heads + 2 * s.n_kv_heads) * s.d_head;
    float* const normed = m.normed.data() + static_cast<size_t>(member) * s.most_rows * D;
    for (int row = member; row < n; row += m.team.n_)
      std::memcpy(&m.x[row * D], m.embedding + tokens[row] * D, D * sizeof(float));
    m.team.meet();
    for (int layer = 0; layer < s.n_layers; ++layer) {
      const Layer& w = m.layers[layer];
      std::atomic<int>* const taken = &m.taken[5 * layer];
      normalise(w.attention_norm, normed);
      share(taken[0], n_outputs, [&](int begin, int end) {
        product(w.qkv, normed, n, D, begin, end, [&](int row, int o, float value) { m.heads[row * n_outputs + o] = value; });
      });
      m.team.meet();
      for (int one; (one = taken[1].fetch_add(1, std::memory_order_relaxed)) < n * s.n_kv_heads;)
        attend(one / s.n_kv_heads, one % s.n_kv_heads, caches[layer], member);
      m.team.meet();
      share(taken[2], D, [&](int begin, int end) {
        product(w.output, m.read.data(), n, s.n_heads * s.d_head, begin, end,
                [&](int row, int o, float value) { m.x[row * D + o] += value; });
      });
      m.team.meet();
      normalise(w.mlp_norm, normed);
      share(taken[3], s.d_ff, [&](int begin, int end) { feed(w.gate_up, normed, begin, end); });
      m.team.meet();
      share(taken[4], D, [&](int begin, int end) {
        product(w.down, m.hidden.data(), n, s.d_ff, begin, end,
                [&](int row, int o, float value) { m.x[row * D + o] += value; });
      });
      m.team.meet();
    }
    normalise(m.norm, normed);
    share(m.taken[5 * s.n_layers], s.vocab_size, [&](int begin, int end) {
      product(m.head, normed, n, D, begin, end,
              [&](int row, int o, float value) { logits[row * static_cast<int64_t>(s.vocab_size) + o] = value; });
    });
  }

 private:
  // Parts of the outputs [0, total) until nothing is left, eight a thread: one that the machine holds up takes fewer.
  template <class Work>
  void share(std::atomic<int>& taken, int total, Work work) {
    const int part = std::max(4 * OUTPUTS, total / (8 * m.team.n_) / OUTPUTS * OUTPUTS);
    for (int begin; (begin = taken.fetch_add(part, std::memory_order_relaxed)) < total;)
      work(begin, std::min(begin + part, total));
  }

  // Root mean square norm (Zhang and Sennrich 2019) of all rows, by every thread for itself: cheaper than to meet.
  void normalise(const float* weight, float* to) const {
    const int D = s.d_model;
    for (int row = 0; row < n; ++row) {
      const float* x = &m.x[row * D];
      Vector squares{};
      for (int i = 0; i < D; i += LANES) squares += load(x + i) * load(x + i);
      const Vector scale = all(1.0f / std::sqrt(sum(squares) / D + s.norm_eps));
      for (int i = 0; i < D; i += LANES) store(to + row * D + i, load(x + i) * scale * load(weight + i));
    }
  }

  // SwiGLU (Shazeer 2020): outputs [begin, end) of silu(gate) up.
  void feed(const float* gate_up, const float* normed, int begin, int end) const {
    const int F = s.d_ff;
    float* const hidden = m.hidden.data();
    product(gate_up, normed, n, s.d_model, begin, end, [&](int row, int o, float value) { hidden[row * F + o] = value; });
    product(gate_up + static_cast<int64_t>(F) * s.d_model, normed, n, s.d_model, begin, end, [&](int row, int o, float up) {
      float& gate = hidden[row * F + o];
      const float decay = exponential(-std::fabs(gate));
      gate = gate * (gate >= 0 ? 1.0f : decay) / (1.0f + decay) * up;  // x sigmoid(x), without a large power
    });
  }

  // Turns what two halves of a head have at a place (Su et al. 2021).
  void turn(const float* from, float* to, int64_t place) const {
    const int half = s.d_head / 2;
    const float *cos = m.cos + place * half, *sin = m.sin + place * half;
    for (int i = 0; i < half; ++i) {
      const float first = from[i], second = from[half + i];
      to[i] = first * cos[i] - second * sin[i];
      to[half + i] = second * cos[i] + first * sin[i];
    }
  }

  // The query heads that share key head `kv` of a row; its new key and value go to the cache first.
  void attend(int row, int kv, float* cache, int member) const {
    const int E = s.d_head, group = s.n_heads / s.n_kv_heads;
    const int64_t place = lengths[row], head_size = max_len * E;
    float* const fresh = m.heads.data() + static_cast<int64_t>(row) * (s.n_heads + 2 * s.n_kv_heads) * E;
    float* const keys = cache + (static_cast<int64_t>(row) * s.n_kv_heads + kv) * head_size;
    float* const values = keys + cache_rows * s.n_kv_heads * head_size;
    turn(fresh + (s.n_heads + kv) * E, keys + place * E, place);
    std::memcpy(values + place * E, fresh + (s.n_heads + s.n_kv_heads + kv) * E, E * sizeof(float));
    const int64_t n_scores = m.scores.size() / (static_cast<size_t>(m.team.n_) * group);
    for (int member_of_group = 0; member_of_group < group; ++member_of_group) {
      const int head = kv * group + member_of_group;
      float* const q = fresh + head * E;
      float* const scores = m.scores.data() + (static_cast<int64_t>(member) * group + member_of_group) * n_scores;
      turn(q, q, place);
      const int padded = weigh(q, keys, static_cast<int>(place) + 1, scores);
      gather(scores, values, static_cast<int>(place) + 1, padded, m.read.data() + (static_cast<int64_t>(row) * s.n_heads + head) * E);
    }
  }

  // Softmax of the scores of `n_keys` keys, not yet divided by their sum, which stands behind them.
  int weigh(const float* q, const float* keys, int n_keys, float* scores) const {
    const int E = s.d_head;
    const float scale = 1.0f / std::sqrt(static_cast<float>(E));
    float largest = -INFINITY;
    product(keys, q, 1, E, 0, n_keys, [&](int, int key, float value) {
      scores[key] = value * scale;
      largest = std::max(largest, scores[key]);
    });
    const int padded = (n_keys + LANES - 1) / LANES * LANES;
    for (int key = n_keys; key < padded; ++key) scores[key] = -INFINITY;
    for (int key = 0; key < padded; ++key) scores[key] = exponential(scores[key] - largest);
    for (int key = n_keys; key < padded; ++key) scores[key] = 0.0f;
    return padded;
  }

  // Values (n_keys, E) weighed by the scores, divided by the scores' sum.
  void gather(const float* scores, const float* values, int n_keys, int padded, float* to) const {
    const int E = s.d_head;
    Vector total{};
    for (int key = 0; key < padded; key += LANES) total += load(scores + key);
    const float whole = 1.0f / sum(total);
    int i = 0;
    for (; i + 4 * LANES <= E; i += 4 * LANES) add<4>(scores, values + i, n_keys, whole, to + i);
    for (; i < E; i += LANES) add<1>(scores, values + i, n_keys, whole, to + i);
  }

  // N vectors of each value.
  template <int N>
  void add(const float* scores, const float* values, int n_keys, float scale, float* to) const {
    Vector acc[N] = {};
    for (int key = 0; key < n_keys; ++key, values += s.d_head)
      for (int part = 0; part < N; ++part) acc[part] += all(scores[key]) * load(values + part * LANES);
    for (int part = 0; part < N; ++part) store(to + part * LANES, acc[part] * all(scale));
  }

  Model& m;
  const Shape& s;
  const int n;
  const int64_t *tokens, *lengths;
  float* const* caches;
  const int64_t cache_rows, max_len;
  float* logits;
};

}  // namespace

// A further token in each of the first n rows; see FusedDecoder.decode. A cache is (2, cache_rows, K, max_len, E).
extern "C" void lumi_step(Model* model, int n, const int64_t* tokens, const int64_t* lengths, float* const* caches,
                          int64_t cache_rows, int64_t max_len, float* logits) {
  Step step(*model, n, tokens, lengths, caches, cache_rows, max_len, logits);
  model->team.run(step);
}
