// Newton-Schulz iterations of many matrices in bfloat16: x becomes a x + (b A + c A A) x with A = x xᵀ.
//
// Each thread takes a matrix through all iterations while it is in the cache of its core. The bits are those of torch's
// products (oneDNN): the processor's bfloat16 instructions add up a product in float32, a block of the summed dimension
// after the other; then it is scaled and added, and rounded once.
//
// A matrix is stored in tiles of 16 x 32 elements, 1 KiB each, one row of tiles after the other. Rows and columns are cut
// into blocks; a block of fewer than 32 elements is filled up with zeros, which change no sum.

#include <immintrin.h>
#include <omp.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BLOCK 32           // rows and columns of the blocks that a product is computed in
#define TILE (16 * BLOCK)  // elements

typedef uint16_t bfloat16;

static inline __m512i widen(const bfloat16 *x) { return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)x)); }

// 16 x 16 numbers of 32 bits, transposed.
static inline void transpose(const uint32_t *x, uint32_t *out) {
  __m512i a[16], b[16];
  for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_si512(x + 16 * i);
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
  }
  for (int i = 0; i < 16; i += 4)
    for (int half = 0; half < 2; half++) {
      a[i + 2 * half] = _mm512_unpacklo_epi64(b[i + half], b[i + half + 2]);
      a[i + 2 * half + 1] = _mm512_unpackhi_epi64(b[i + half], b[i + half + 2]);
    }
  for (int i = 0; i < 16; i += 8)
    for (int j = 0; j < 4; j++) {
      b[i + j] = _mm512_shuffle_i32x4(a[i + j], a[i + j + 4], 0x88);
      b[i + j + 4] = _mm512_shuffle_i32x4(a[i + j], a[i + j + 4], 0xdd);
    }
  for (int i = 0; i < 8; i++) {
    _mm512_storeu_si512(out + 16 * i, _mm512_shuffle_i32x4(b[i], b[i + 8], 0x88));
    _mm512_storeu_si512(out + 16 * (i + 8), _mm512_shuffle_i32x4(b[i], b[i + 8], 0xdd));
  }
}

// What the instructions take as the right factor: tiles of 16 x 16 pairs, each of two elements of a column, so of 32 rows.
// Tiles of the same 16 columns are together. `x` is the upper tile of the rows, and `below` the lower one.
static inline void pair_tile(const bfloat16 *x, const bfloat16 *below, uint32_t *pairs) {
  for (int k = 0; k < 16; k++) {
    const bfloat16 *row = k < 8 ? x + 2 * k * BLOCK : below + (2 * k - 16) * BLOCK;
    _mm512_storeu_si512(pairs + 16 * k, _mm512_or_si512(widen(row), _mm512_slli_epi32(widen(row + BLOCK), 16)));
  }
}

static void pair_rows(const bfloat16 *x, int64_t rows, int64_t columns, uint32_t *pairs) {
  for (int64_t j = 0; j < columns; j += 16)
    for (int64_t i = 0; i < rows; i += BLOCK, pairs += TILE / 2) {
      const bfloat16 *first = x + i * columns + j / BLOCK * TILE + j % BLOCK;
      pair_tile(first, first + 16 * columns, pairs);
    }
}

// The same of the transpose of x, whose pairs are in the rows of x.
static void pair_columns(const bfloat16 *x, int64_t rows, int64_t columns, uint32_t *pairs) {
  for (int64_t at = 0; at < rows * columns; at += TILE) transpose((const uint32_t *)(x + at), pairs + at / 2);
}

#ifdef __AMX_BF16__

// Whether the operating system allows the instructions; called once.
int may_run(void) {
  enum { REQUEST = 0x1023, TILE_DATA = 18 };  // Linux gives the tile registers to those who ask for them
  return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
}

static void begin_thread(void) {
  struct {
    uint8_t palette, start, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  } shapes = {.palette = 1};
  for (int i = 0; i < 8; i++) shapes.row_bytes[i] = 64, shapes.rows[i] = 16;
  _tile_loadconfig(&shapes);
}

static void end_thread(void) { _tile_release(); }

// The quarters of a block of left · right, 16 x 16 each: of two rows of tiles and two columns of them, `depth` tiles each.
static inline void multiply_block(const bfloat16 *left, const uint32_t *right, int64_t depth, float *sums) {
  _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
  for (int64_t k = 0; k < depth; k++) {
    _tile_loadd(4, left + k * TILE, 64); _tile_loadd(6, right + k * TILE / 2, 64);
    _tile_loadd(5, left + (depth + k) * TILE, 64); _tile_loadd(7, right + (depth + k) * TILE / 2, 64);
    _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7); _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, sums, 64); _tile_stored(1, sums + 256, 64);
  _tile_stored(2, sums + 512, 64); _tile_stored(3, sums + 768, 64);
}

#elif defined __AVX512BF16__

int may_run(void) { return 1; }
static void begin_thread(void) {}
static void end_thread(void) {}

static inline void multiply_block(const bfloat16 *left, const uint32_t *right, int64_t depth, float *sums) {
  for (int quarter = 0; quarter < 4; quarter++, sums += 256) {
    const bfloat16 *rows = left + quarter / 2 * depth * TILE;
    const uint32_t *pairs = right + quarter % 2 * depth * TILE / 2;
    __m512 sum[16];
    for (int i = 0; i < 16; i++) sum[i] = _mm512_setzero_ps();
    for (int64_t k = 0; k < 16 * depth; k++) {
      __m512bh both = (__m512bh)_mm512_loadu_si512(pairs + 16 * k);
      for (int i = 0; i < 16; i++) {
        int pair;
        memcpy(&pair, rows + k / 16 * TILE + i * BLOCK + k % 16 * 2, sizeof pair);
        sum[i] = _mm512_dpbf16_ps(sum[i], (__m512bh)_mm512_set1_epi32(pair), both);
      }
    }
    for (int i = 0; i < 16; i++) _mm512_storeu_ps(sums + 16 * i, sum[i]);
  }
}

#else
#error the processor does not multiply bfloat16
#endif

// out = alpha left · right + beta added, without the last term if `added` is NULL.
static void multiply(
    const bfloat16 *left, const uint32_t *right, const bfloat16 *added, bfloat16 *out, int64_t rows, int64_t columns,
    int64_t depth, float alpha, float beta, int is_symmetric) {
  float sums[BLOCK * BLOCK] __attribute__((aligned(64)));
  uint32_t pairs[TILE / 2] __attribute__((aligned(64)));
  for (int64_t j = 0; j < columns; j += BLOCK)
    for (int64_t i = 0; i < (is_symmetric ? j + BLOCK : rows); i += BLOCK) {
      multiply_block(left + i * depth, right + j * depth / 2, depth / BLOCK, sums);
      int64_t first = i * columns + j / BLOCK * TILE;
      for (int at = 0; at < BLOCK * BLOCK; at += 16) {
        int quarter = at / 256, row = at % 256 / 16;
        int64_t place = first + quarter / 2 * 16 * columns + row * BLOCK + quarter % 2 * 16;
        __m512 value = _mm512_load_ps(sums + at);
        if (added) {
          __m512 term = _mm512_castsi512_ps(_mm512_slli_epi32(widen(added + place), 16));
          value = _mm512_fmadd_ps(term, _mm512_set1_ps(beta), _mm512_mul_ps(value, _mm512_set1_ps(alpha)));
        }
        _mm256_storeu_si256((void *)(out + place), (__m256i)_mm512_cvtneps_pbh(value));
      }
      for (int half = 0; half < 2 && is_symmetric && i < j; half++) {
        pair_tile(out + first + 16 * half, out + first + 16 * half + 16 * columns, pairs);
        transpose(pairs, (uint32_t *)(out + (j + 16 * half) * columns + i / BLOCK * TILE));
      }
    }
}

// How many elements of a dimension are in one block: as oneDNN cuts it, which takes equal parts in small products only.
static int64_t block_length(int64_t size, int64_t rows) {
  int64_t blocks = (size + BLOCK - 1) / BLOCK;
  return size % (2 * blocks) || (size >= 128 && rows >= 96) ? BLOCK : size / blocks;
}

static int64_t padded(int64_t size) { return (size + BLOCK - 1) / BLOCK * BLOCK; }

// From rows into tiles, or back.
static void copy(bfloat16 *matrix, int64_t rows, int64_t columns, bfloat16 *tiles, int back) {
  int64_t height = block_length(rows, rows), width = block_length(columns, rows);
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j += width) {
      int64_t row = i / height * BLOCK + i % height;
      bfloat16 *part = matrix + i * columns + j;
      bfloat16 *stored = tiles + row / 16 * 16 * padded(columns) + j / width * TILE + row % 16 * BLOCK;
      size_t size = (columns - j < width ? columns - j : width) * sizeof *part;
      back ? memcpy(part, stored, size) : memcpy(stored, part, size);
    }
}

// The elements of `space` that each thread needs.
int64_t find_space(int64_t rows, int64_t columns) {
  return padded(rows) * (2 * padded(rows) + 3 * padded(columns));
}

void newton_schulz(
    bfloat16 *stack,           // (number, rows, columns), of no more rows than columns
    const float *polynomials,  // (steps, 3): a, b, c
    bfloat16 *space, int64_t number, int64_t rows, int64_t columns, int64_t steps, int num_threads) {
  int64_t m = padded(rows), n = padded(columns);
#pragma omp parallel num_threads(num_threads)
  {
    begin_thread();
    bfloat16 *x = space + omp_get_thread_num() * find_space(rows, columns);
    bfloat16 *next = x + m * n, *gram = next + m * n, *square = gram + m * m;
    uint32_t *pairs = (uint32_t *)(square + m * m);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < number; i++) {
      memset(x, 0, m * n * sizeof *x);
      copy(stack + i * rows * columns, rows, columns, x, 0);
      for (const float *p = polynomials; p < polynomials + 3 * steps; p += 3) {
        pair_columns(x, m, n, pairs);
        multiply(x, pairs, NULL, gram, m, m, n, 1, 0, 1);
        pair_rows(gram, m, m, pairs);
        multiply(gram, pairs, gram, square, m, m, m, p[2], p[1], 1);
        pair_rows(x, m, n, pairs);
        multiply(square, pairs, x, next, m, n, m, 1, p[0], 0);
        bfloat16 *last = x;
        x = next, next = last;
      }
      copy(stack + i * rows * columns, rows, columns, x, 1);
    }
    end_thread();
  }
}
