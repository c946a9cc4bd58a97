// Cross-entropy of rows of logits and its slope, in place, on a CPU: what is left of the loss between the products.
//
// Made of tensor operations this reads and writes the logits, the largest array of a step, seven times; here three times, while a row
// is in the cache. The rows are shared out among PyTorch's own threads (both use the OpenMP runtime that PyTorch has loaded), each row is
// computed by one of them and in one order, so that the bits do not depend on their number.

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "vectors.h"

namespace {

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
