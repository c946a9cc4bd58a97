// Vectors of sixteen numbers, whatever the processor has, and what the kernels do with them.
#pragma once

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
inline float value(const T* at) {
  float one;
  if constexpr (sizeof(T) == 4) {
    one = *at;
  } else {
    const uint32_t bits = static_cast<uint32_t>(*at) << 16;
    std::memcpy(&one, &bits, sizeof one);
  }
  return one;
}

}  // namespace
