// Products of bfloat16 matrices by a processor's matrix units (AMX), summed in float32.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "vectors.h"

#ifdef __AVX512F__
#include <immintrin.h>
#endif
#if defined(__AMX_BF16__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#define HAS_AMX 1
#endif

namespace {

typedef uint16_t bf16;

constexpr int64_t TILE = 512;  // numbers of bfloat16
constexpr float LOG2_E = 1.44269504088896341f;
constexpr float POWER[] = {1.0f, 0.69314698f, 0.24022242f, 0.05550734f, 0.00967151f, 0.00132647f};

// Sixteen numbers, rounded to the nearest.
inline void round_to(bf16* to, Vector v) {
#ifdef __AVX512BF16__
  const __m256bh rounded = _mm512_cvtneps_pbh((__m512)v);
  std::memcpy(to, &rounded, sizeof rounded);
#else
  store(to, v);
#endif
}

// Two rows of sixteen numbers, rounded, as pairs.
inline void round_pairs(bf16* to, Vector even, Vector odd) {
  Half rows[2];
  round_to(reinterpret_cast<bf16*>(rows), even);
  round_to(reinterpret_cast<bf16*>(rows + 1), odd);
  const Whole pairs = __builtin_convertvector(rows[0], Whole) | __builtin_convertvector(rows[1], Whole) << 16;
  std::memcpy(to, &pairs, sizeof pairs);
}

// 2^x for x <= 0, to about 2e-7; 0 below 2^-149, so that what is not seen leaves no trace. NaN stays NaN.
inline Vector power(Vector x) {
#ifdef __AVX512F__
  // 2^x = 2^n 2^r with |r| <= 1/2, the latter by the polynomial of least relative error.
  const __m512 bounded = _mm512_max_ps(_mm512_set1_ps(-1000.0f), (__m512)x);
  const __m512 n = _mm512_roundscale_ps(bounded, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const Vector r = (Vector)_mm512_sub_ps(bounded, n);
  Vector p = POWER[5] * r + POWER[4];
  for (int i = 3; i >= 0; --i) p = p * r + POWER[i];
  return (Vector)_mm512_scalef_ps((__m512)p, n);
#else
  return x < -125.0f ? Vector{} : exponential(x * 0.69314718056f);
#endif
}

// Sixteen vectors of sixteen numbers, transposed: halves change places across the diagonal, then halves of the halves.
template <int HALF, int... LANE>
inline void exchange(Whole* rows, std::integer_sequence<int, LANE...>) {
  for (int row = 0; row < LANES; ++row) {
    if (row & HALF) continue;
    const Whole a = rows[row], b = rows[row + HALF];
#ifdef __clang__
    rows[row] = __builtin_shufflevector(a, b, (LANE & HALF ? LANES + LANE - HALF : LANE)...);
    rows[row + HALF] = __builtin_shufflevector(a, b, (LANE & HALF ? LANES + LANE : LANE + HALF)...);
#else
    rows[row] = __builtin_shuffle(a, b, Whole{(LANE & HALF ? LANES + LANE - HALF : LANE)...});
    rows[row + HALF] = __builtin_shuffle(a, b, Whole{(LANE & HALF ? LANES + LANE : LANE + HALF)...});
#endif
  }
}
inline void turn(Whole* rows) {
  constexpr std::make_integer_sequence<int, LANES> lanes{};
  exchange<8>(rows, lanes), exchange<4>(rows, lanes), exchange<2>(rows, lanes), exchange<1>(rows, lanes);
}

struct Memory {  // given out in pieces; from nothing, it only counts
  char* begin;
  size_t used = 0;
  template <class T>
  T* take(int64_t n) {
    T* taken = reinterpret_cast<T*>(begin + used);
    used += (n * sizeof(T) + 63) / 64 * 64;
    return taken;
  }
};

// Two rows of tiles of a, or two columns of tiles of b: where the first tiles lie, how far a tile's rows lie apart, and a tile from the
// one before. A tile of a is 16 rows of 32 numbers, one of b 16 pairs of rows of 16 numbers.
struct Operand {
  const bf16 *first, *second;
  int64_t row, step;
};

#ifdef HAS_AMX

struct Tiles {  // eight of 16 rows of 64 bytes; another library may have set its own in this thread
  Tiles() {
    _tile_storeconfig(&before);
    Config wanted{};
    wanted.palette = 1;
    for (int tile = 0; tile < 8; ++tile) wanted.columns[tile] = 64, wanted.rows[tile] = 16;
    _tile_loadconfig(&wanted);
  }
  ~Tiles() { before.palette ? _tile_loadconfig(&before) : _tile_release(); }
  struct alignas(64) Config {
    uint8_t palette, start, reserved[14];
    uint16_t columns[16];
    uint8_t rows[16];
  } before;
};

bool permitted() {  // Linux gives the matrix units' registers to who asks for them
  constexpr long REQUEST = 0x1023, DATA = 18;
  return syscall(SYS_arch_prctl, REQUEST, DATA) == 0;
}

// c (32, 32) = a (32, 32 k) b (32 k, 32), or added to it.
inline void multiply(float* c, int64_t c_row, const Operand& a, const Operand& b, int64_t k, bool add) {
  float *upper = c, *lower = c + 16 * c_row;
  const int64_t c_bytes = 4 * c_row, a_bytes = 2 * a.row, b_bytes = 2 * b.row;
  if (add) {
    _tile_loadd(0, upper, c_bytes);
    _tile_loadd(1, upper + 16, c_bytes);
    _tile_loadd(2, lower, c_bytes);
    _tile_loadd(3, lower + 16, c_bytes);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t step = 0; step < k; ++step) {
    _tile_loadd(4, a.first + step * a.step, a_bytes);
    _tile_loadd(6, b.first + step * b.step, b_bytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b.second + step * b.step, b_bytes);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, a.second + step * a.step, a_bytes);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, upper, c_bytes);
  _tile_stored(1, upper + 16, c_bytes);
  _tile_stored(2, lower, c_bytes);
  _tile_stored(3, lower + 16, c_bytes);
}

#else  // for tests on other machines: slow, and never chosen

struct Tiles {
  Tiles() {}
};

bool permitted() { return false; }

inline void multiply(float* c, int64_t c_row, const Operand& a, const Operand& b, int64_t k, bool add) {
  for (int64_t i = 0; i < 32; ++i)
    for (int64_t j = 0; j < 32; ++j) {
      float total = add ? c[i * c_row + j] : 0.0f;
      const bf16* row = (i < 16 ? a.first : a.second) + i % 16 * a.row;
      const bf16* column = (j < 16 ? b.first : b.second) + j % 16 * 2;
      for (int64_t step = 0; step < k; ++step)
        for (int64_t depth = 0; depth < 32; ++depth)
          total += value(row + step * a.step + depth) * value(column + step * b.step + depth / 2 * b.row + depth % 2);
      c[i * c_row + j] = total;
    }
}

#endif

// c (m, n) = a (m, k) b (k, n), or added to it; m, n and k are multiples of 32. The numbers after c, a and b are how far rows lie apart.
// b comes as pairs: its row p holds for every column the numbers of rows 2p and 2p + 1, and lies 2 b_row numbers after the one before.
inline void product(float* c, int64_t c_row, const bf16* a, int64_t a_row, const bf16* b, int64_t b_row, int64_t m, int64_t n, int64_t k,
                    bool add) {
  for (int64_t i = 0; i < m; i += 32)
    for (int64_t j = 0; j < n; j += 32) {
      const bf16 *rows = a + i * a_row, *columns = b + 2 * j;
      multiply(c + i * c_row + j, c_row, {rows, rows + 16 * a_row, a_row, 32}, {columns, columns + 32, 2 * b_row, 32 * b_row}, k / 32, add);
    }
}

// c (32, 32) = a (32, 32 k) b (32 k, 32), or added to it, of two rows of tiles of a and two columns of tiles of b. k tiles lie one after
// another; a tile of a is 16 rows of 32 numbers, one of b 16 pairs of rows of 16 numbers.
inline void product(float* c, int64_t c_row, const bf16* const (&a)[2], const bf16* const (&b)[2], int64_t k, bool add) {
  multiply(c, c_row, {a[0], a[1], 32, TILE}, {b[0], b[1], 32, TILE}, k, add);
}

}  // namespace
