// What the lines of a kernel compute, element by element, with NaN and infinities as torch has them.
//
// No branches (so `|`, not `||`) and no calls, so that loops become vector code, and each element gets the same bits wherever it stands.
// `real` is float, or double for float64 parameters.

#include <math.h>
#include <omp.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))

INLINE float as_float(uint32_t bits) { float x; memcpy(&x, &bits, sizeof x); return x; }
INLINE uint32_t float_bits(float x) { uint32_t bits; memcpy(&bits, &x, sizeof x); return bits; }
INLINE double as_double(int64_t bits) { double x; memcpy(&x, &bits, sizeof x); return x; }
INLINE int64_t double_bits(double x) { int64_t bits; memcpy(&bits, &x, sizeof x); return bits; }

// Whether another thread has begun this pass over a chunk; if not, this one has now.
INLINE int is_taken(int64_t *taken, int64_t pass) {
  return !__atomic_compare_exchange_n(taken, &pass, pass + 1, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

// Whether all chunks of a tensor are done, this one included, and what other threads have computed of them can be read.
INLINE int is_last(int64_t *done, int64_t num_chunks) {
  return __atomic_add_fetch(done, 1, __ATOMIC_ACQ_REL) % (num_chunks + 1) == num_chunks;
}

// The larger number, or NaN if there is one.
INLINE double larger(double x, double y) { return (x > y) | (x != x) ? x : y; }

// Of what the chunks of a tensor have.
INLINE double sum_of(const double *parts, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; i++) sum += parts[i];
  return sum;
}

INLINE double amax_of(const double *parts, int64_t count) {
  double largest = -INFINITY;
  for (int64_t i = 0; i < count; i++) largest = larger(largest, parts[i]);
  return largest;
}

INLINE void wait_for(const int64_t *done, int64_t count) {
  for (int tries = 0; __atomic_load_n(done, __ATOMIC_ACQUIRE) < count; tries++)
    if (tries > 100000) sched_yield();  // milliseconds, where others wait for the processor
}

// Add to step counters, of which every kernel's library can be asked; returns whether all were the same.
int count_steps(float *const *counters, int64_t count, float amount) {
  const float first = count ? *counters[0] : 0;
  int are_equal = 1;
  for (int64_t i = 0; i < count; i++) {
    are_equal &= *counters[i] == first;
    *counters[i] += amount;
  }
  return are_equal;
}

// Have memory read that is needed soon.
INLINE void fetch(const char *start, int64_t size) {
  for (int64_t i = 0; i < size; i += 64) __builtin_prefetch(start + i);
}

// Copy to memory that nobody has read; past the caches, which would fetch each line before it is written.
INLINE void write_new(char *to, const char *from, int64_t size, int past_caches) {
  int64_t start = 0;
#ifdef __SSE2__
  if (past_caches & ((uintptr_t)to % 64 == 0))
    for (; start + 64 <= size; start += 64)
      for (int64_t i = start; i < start + 64; i += 16)
        _mm_stream_si128((__m128i *)(to + i), _mm_loadu_si128((const __m128i *)(from + i)));
#endif
  memcpy(to + start, from + start, size - start);
}

// Let other threads see what was written so.
INLINE void end_writes(void) {
#ifdef __SSE2__
  _mm_sfence();
#endif
}

// 16-bit numbers: exact when loaded, rounded to nearest even when stored.

typedef uint16_t bfloat16;
typedef uint16_t float16;
typedef float float32;
typedef double float64;

INLINE float load_float32(float32 x) { return x; }
INLINE double load_float64(float64 x) { return x; }
INLINE float32 store_float32(double x) { return (float)x; }
INLINE float64 store_float64(double x) { return x; }

INLINE float load_bfloat16(bfloat16 x) { return as_float((uint32_t)x << 16); }

INLINE bfloat16 store_bfloat16(float x) {
  const uint32_t bits = float_bits(x), rounded = bits + 0x7fff + ((bits >> 16) & 1);
  return x == x ? rounded >> 16 : 0x7fc0;
}

// After github.com/Maratyszcza/FP16, as in torch.

INLINE float load_float16(float16 x) {
  const uint32_t bits = (uint32_t)x << 16, sign = bits & 0x80000000u, twice = bits + bits;
  const float normal = as_float((twice >> 4) + (0xE0u << 23)) * 0x1.0p-112f;
  const float subnormal = as_float((twice >> 17) | (126u << 23)) - 0.5f;
  return as_float(sign | (twice < (1u << 27) ? float_bits(subnormal) : float_bits(normal)));
}

INLINE float16 store_float16(float x) {
  const uint32_t bits = float_bits(x), sign = bits & 0x80000000u, twice = bits + bits;
  const float base = (fabsf(x) * 0x1.0p+112f) * 0x1.0p-110f;
  const uint32_t bias = (twice & 0xFF000000u) < 0x71000000u ? 0x71000000u : twice & 0xFF000000u;
  const uint32_t sum = float_bits(as_float((bias >> 1) + 0x07800000u) + base);
  const uint32_t finite = ((sum >> 13) & 0x7C00u) + (sum & 0x0FFFu);
  return (sign >> 16) | (twice > 0xFF000000u ? 0x7E00u : finite);
}

// The operations that C has no operator for.

#ifdef REAL_IS_DOUBLE
#define MATH(name) name
#else
#define MATH(name) name##f
#endif

INLINE real op_abs(real x) { return MATH(fabs)(x); }
INLINE real op_sqrt(real x) { return MATH(sqrt)(x); }
INLINE real op_sign(real x) { return (real)(x > 0) - (real)(x < 0); }
// One instruction for x, also where it is NaN, and one test for y, which is mostly the same for all elements.
INLINE real op_max(real x, real y) { const real larger = y > x ? y : x; return y == y ? larger : y; }
INLINE real op_min(real x, real y) { const real smaller = y < x ? y : x; return y == y ? smaller : y; }
INLINE real op_and(real x, real y) { return (x != 0) & (y != 0); }
INLINE real op_or(real x, real y) { return (x != 0) | (y != 0); }
INLINE real op_where(real condition, real x, real y) { return condition != 0 ? x : y; }
INLINE real op_tanh(real x) { return MATH(tanh)(x); }
INLINE real op_log(real x) { return MATH(log)(x); }

// x * y + z, rounded once, as torch's vector code does it; in double only where the machine can.
INLINE real op_fma(real x, real y, real z) {
#ifdef __FP_FAST_FMAF
  return MATH(fma)(x, y, z);
#else
  return (double)x * y + z;
#endif
}

// From the nearer end, so that a weight of 1 gives `end` exactly.
INLINE real op_lerp(real start, real end, real weight) {
  const int near_start = MATH(fabs)(weight) < (real)0.5;
  return op_fma(near_start ? weight : weight - 1, end - start, near_start ? start : end);
}

#ifdef REAL_IS_DOUBLE

INLINE real op_exp(real x) { return exp(x); }
INLINE real op_pow(real x, real y) { return pow(x, y); }
INLINE real op_cube_root(real x) { return pow(x, 1.0 / 3); }

#else

// As the exponent multiplies the error of a logarithm, that is a sum of two numbers; so a power is off by one unit at
// most, for exponents below 20. The functions of the C library would either not become vector code or give other bits
// for the last elements of a chunk.

// 2^(x + low): 2^n of the nearest integer n by its bits, in two halves for subnormal results, and a series for the rest.
INLINE float exp2_of(float x, float low) {
  const float clamped = x > 250 ? 250 : x < -250 ? -250 : x, shifted = clamped + 0x1.8p23f;
  const float rest = clamped - (shifted - 0x1.8p23f) + (clamped == x ? low : 0);
  const int32_t n = (int32_t)(float_bits(shifted) - float_bits(0x1.8p23f)), half = n >> 1;
  float sum = op_fma(rest, 1.525273380e-5f, 1.540353039e-4f);
  sum = op_fma(sum, rest, 1.333355815e-3f);
  sum = op_fma(sum, rest, 9.618129108e-3f);
  sum = op_fma(sum, rest, 5.550410866e-2f);
  sum = op_fma(sum, rest, 2.402265070e-1f);
  sum = op_fma(sum, rest, 6.931471806e-1f);
  sum = op_fma(sum, rest, 1.0f);
  return sum * as_float((uint32_t)(half + 127) << 23) * as_float((uint32_t)(n - half + 127) << 23);
}

INLINE float op_exp(float x) {
  const float high = 1.442695022f, low = 1.925962991e-8f, power = x * high;  // of 1 / ln 2
  return x == x ? exp2_of(power, op_fma(x, low, op_fma(x, high, -power))) : x;
}

// |x| = 2^n m with m between 1/sqrt(2) and sqrt(2), and ln m = 2 artanh(ratio) with ratio = (m - 1) / (m + 1), of which
// `rest` is what its rounding has left out.
INLINE float op_pow(float x, float y) {
  const float size = fabsf(x);
  const int subnormal = size < 0x1p-126f;
  const uint32_t bits = float_bits(subnormal ? size * 0x1p24f : size);
  const int32_t n = (int32_t)(bits - 0x3f3504f3) >> 23;
  const float m = as_float(bits - ((uint32_t)n << 23)), whole = n - (subnormal ? 24 : 0);
  const float below = m + 1, inverse = 1 / below, ratio = (m - 1) * inverse, square = ratio * ratio;
  const float rest = op_fma(-ratio, m - (below - 1), op_fma(-ratio, below, m - 1)) * inverse;
  float sum = op_fma(square, 2.623081893e-1f, 3.205988979e-1f);
  sum = op_fma(sum, square, 4.121985830e-1f);
  sum = op_fma(sum, square, 5.770780164e-1f);
  sum = op_fma(sum, square, 9.617966939e-1f);
  const float scale = 2.885390043f, scale_low = 3.851925982e-8f, main = ratio * scale, most = whole + main;
  float low = op_fma(ratio, scale, -main) + op_fma(ratio, scale_low, rest * scale);
  low = op_fma(sum * square, ratio, low) + (main - (most - whole));
  float log2 = most + low;
  low -= log2 - most;
  log2 = size == 0 ? -INFINITY : log2;
  log2 = size < INFINITY ? log2 : size;
  const float exponent = y * log2;
  float power = exp2_of(exponent, op_fma(y, low, op_fma(y, log2, -exponent)));
  const int is_whole = truncf(y) == y, is_odd = is_whole & (truncf(y / 2) != y / 2);
  power = (x < 0) & (size < INFINITY) & !is_whole ? NAN : power;
  power = (float_bits(x) >> 31) & is_odd ? -power : power;
  return y == 0 ? 1 : power;
}

// x^(1/3), with 1/3 rounded to float32 and NaN below 0, as op_pow has it. From Newton's steps for x^(-1/3), without a
// division (Moroz et al., doi:10.3390/en14041058), and a last one with the exact remainder x - root^3.
INLINE float op_cube_root(float x) {
  const float size = fabsf(x);
  const int tiny = size < 0x1p-80f;  // its remainder would be subnormal
  const float scaled = tiny ? size * 0x1p72f : size, bits = (float)(int32_t)float_bits(scaled);
  float inverse = as_float((uint32_t)(int32_t)(0x548c2b4bp0f - bits * (1 / 3.0f)));
  const float ratio = scaled * inverse * inverse * inverse;
  inverse *= op_fma(-ratio, op_fma(-ratio, 0.5093818292f, 1.2509524245f), 1.752319676f);
  float root = scaled * inverse * inverse;
  root = op_fma(root * (1 / 3.0f), op_fma(-root, inverse, 1), root);
  const float square = root * root, rest = op_fma(root, root, -square);
  const float remainder = op_fma(-rest, root, op_fma(-square, root, scaled));
  const float log2 = op_fma(bits, 0x1p-23f, tiny ? -127 - 72 : -127), rounding = 6.8858e-9f;  // of 1/3, times ln 2
  root += op_fma(remainder * inverse, inverse * (1 / 3.0f), root * rounding * log2);
  root = size == INFINITY ? INFINITY : tiny ? root * 0x1p-24f : root;
  return (x < 0) & (size != INFINITY) ? NAN : root;
}

#endif
