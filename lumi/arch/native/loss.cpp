// Cross-entropy of rows of logits and its slope, in place, on a CPU: what is left of the loss between the products.
//
// Made of tensor operations this reads and writes the logits, the largest array of a step, seven times; here three times, while a row
// is in the cache. The rows are shared out among PyTorch's own threads (both use the OpenMP runtime that PyTorch has loaded), each row is
// computed by one of them and in one order, so that the bits do not depend on their number.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

constexpr int LANES = 16;  // of a float vector, whatever the processor has: the compiler makes one register or four of it
typedef float Vector __attribute__((vector_size(LANES * sizeof(float)), aligned(4)));
typedef int32_t Whole __attribute__((vector_size(LANES * sizeof(int32_t)), aligned(4)));
typedef uint16_t Half __attribute__((vector_size(LANES * sizeof(uint16_t)), aligned(2)));

inline Vector all(float value) { return Vector{} + value; }

inline Vector load(const float* from) { return *reinterpret_cast<const Vector*>(from); }
inline void store(float* to, Vector v) { *reinterpret_cast<Vector*>(to) = v; }

// bfloat16 is the upper half of a float; to it, rounded to the nearest, ties to even. NaN stays NaN.
inline Vector load(const uint16_t* from) {
  const Whole bits = __builtin_convertvector(*reinterpret_cast<const Half*>(from), Whole) << 16;
  return (Vector)bits;
}
inline void store(uint16_t* to, Vector v) {
  const Whole bits = (Whole)v;
  const Whole rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const Whole number = v == v;
  *reinterpret_cast<Half*>(to) = __builtin_convertvector((rounded & number) | (0x7fc0 & ~number), Half);
}

inline Vector larger(Vector a, Vector b) { return a > b ? a : b; }

inline float sum(Vector v) {
  for (int width = LANES / 2; width > 0; width /= 2)
    for (int lane = 0; lane < width; ++lane) v[lane] += v[lane + width];
  return v[0];
}

// e^x for x <= 0 (Cephes: e^x = 2^n e^r, |r| <= ln 2 / 2); errors of about 1e-7. NaN stays NaN.
inline Vector exponential(Vector x) {
  x = x < -87.0f ? all(-87.0f) : x;
  const Vector scaled = x * 1.44269504088896341f - 0.5f;
  const Whole n = __builtin_convertvector(scaled, Whole);  // towards zero, so to the nearest: it is not positive
  const Vector whole = __builtin_convertvector(n, Vector);
  const Vector r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
  Vector p = 1.9875691500e-4f * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const Whole power = (n + 127) << 23;
  return p * (Vector)power;
}

template <class T>
float value(const T* at) {
  float one;
  if constexpr (sizeof(T) == 4) {
    one = *at;
  } else {
    const uint32_t bits = static_cast<uint32_t>(*at) << 16;
    std::memcpy(&one, &bits, sizeof one);
  }
  return one;
}

// A row of n logits, n rounded up to whole vectors with minus infinity: becomes its slope times `scale`, unless that is not wanted.
template <class T>
float row(T* logits, int64_t n, int64_t target, float scale, bool wanted) {
  Vector highest = all(-INFINITY);
  for (int64_t i = 0; i < n; i += LANES) highest = larger(load(logits + i), highest);
  float most = highest[0];
  for (int lane = 1; lane < LANES; ++lane) most = std::max(most, highest[lane]);
  Vector total[4] = {};
  int64_t i = 0;
  for (; i + 4 * LANES <= n; i += 4 * LANES)
    for (int part = 0; part < 4; ++part) total[part] += exponential(load(logits + i + part * LANES) - most);
  for (; i < n; i += LANES) total[0] += exponential(load(logits + i) - most);
  const float whole = sum((total[0] + total[1]) + (total[2] + total[3]));
  const float chosen = value(logits + target), nll = most + std::log(whole) - chosen;
  if (!wanted) return nll;
  const float factor = scale / whole;
  for (i = 0; i < n; i += LANES) store(logits + i, exponential(load(logits + i) - most) * factor);
  Vector there{};
  there[0] = std::exp(chosen - most) * factor - scale;  // not from the stored one, which may have been rounded
  T rounded[LANES];
  store(rounded, there);
  logits[target] = rounded[0];
  return nll;
}

template <class T>
void rows(T* logits, int64_t n_rows, int64_t n, int64_t stride, const int64_t* targets, const float* scales, bool wanted,
          float* nll, int n_threads) {
#pragma omp parallel for schedule(static) num_threads(n_threads)
  for (int64_t r = 0; r < n_rows; ++r)
    nll[r] = row(logits + r * stride, n, targets[r], scales ? scales[r] : 1.0f, wanted);
}

}  // namespace

extern "C" {

// Logits (n_rows, stride), of which n columns, a multiple of 16, are read; targets and scales (n_rows); nll (n_rows) is written.
void lumi_slopes_float(float* logits, int64_t n_rows, int64_t n, int64_t stride, const int64_t* targets, const float* scales,
                       int wanted, float* nll, int n_threads) {
  rows(logits, n_rows, n, stride, targets, scales, wanted, nll, n_threads);
}

void lumi_slopes_bfloat(uint16_t* logits, int64_t n_rows, int64_t n, int64_t stride, const int64_t* targets, const float* scales,
                        int wanted, float* nll, int n_threads) {
  rows(logits, n_rows, n, stride, targets, scales, wanted, nll, n_threads);
}
}
