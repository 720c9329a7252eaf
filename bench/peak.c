/* The machine's peak rate of multiply-accumulates, one line per instruction: "name GMAC/s".
 *
 * Each loop keeps ten (AMX: four) independent accumulators busy. Operands pass through an empty
 * asm, so that the compiler can neither hoist nor drop a product.
 */
#define _GNU_SOURCE
#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { ACCUMULATORS = 10, ITERATIONS = 400000, TRIALS = 9 };

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* TEN writes its argument for each accumulator; an array of them would live in memory. */
#define TEN(DO) DO(c0) DO(c1) DO(c2) DO(c3) DO(c4) DO(c5) DO(c6) DO(c7) DO(c8) DO(c9)

#define HIDE(c) __asm__ volatile("" : "+" REGISTER(c));
#define LOOP(NAME, FEATURES, VECTOR, SET, STEP)                                   \
  __attribute__((target(FEATURES), noinline)) static void NAME(long iterations) { \
    VECTOR a = SET(3), b = SET(5), ones = SET(1), zero = SET(0);                  \
    VECTOR c0 = zero, c1 = zero, c2 = zero, c3 = zero, c4 = zero;                 \
    VECTOR c5 = zero, c6 = zero, c7 = zero, c8 = zero, c9 = zero;                 \
    HIDE(ones)                                                                    \
    for (long n = 0; n < iterations; n++) {                                       \
      TEN(STEP)                                                                   \
    }                                                                             \
    TEN(HIDE)                                                                     \
  }

#define REGISTER "x"
#define MADDUBS(c) \
  HIDE(a) c = _mm256_add_epi32(c, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
LOOP(maddubs_256, "avx2", __m256i, _mm256_set1_epi16, MADDUBS)
#define MADD(c) HIDE(a) c = _mm256_add_epi32(c, _mm256_madd_epi16(a, b));
LOOP(madd_256, "avx2", __m256i, _mm256_set1_epi16, MADD)
#define FMA(c) HIDE(a) c = _mm256_fmadd_ps(a, b, c);
LOOP(fma_256, "avx2,fma", __m256, _mm256_set1_ps, FMA)
#define DPBUSD_AVX(c) HIDE(a) c = _mm256_dpbusd_avx_epi32(c, a, b);
LOOP(dpbusd_avx_256, "avx2,avxvnni", __m256i, _mm256_set1_epi16, DPBUSD_AVX)
#undef REGISTER

#define REGISTER "v"
#define MADDUBS_512(c) \
  HIDE(a) c = _mm512_add_epi32(c, _mm512_madd_epi16(_mm512_maddubs_epi16(a, b), ones));
LOOP(maddubs_512, "avx512f,avx512bw", __m512i, _mm512_set1_epi16, MADDUBS_512)
#define DPBUSD_256(c) HIDE(a) c = _mm256_dpbusd_epi32(c, a, b);
LOOP(dpbusd_256, "avx512f,avx512vl,avx512vnni", __m256i, _mm256_set1_epi16, DPBUSD_256)
#define DPBUSD_512(c) HIDE(a) c = _mm512_dpbusd_epi32(c, a, b);
LOOP(dpbusd_512, "avx512f,avx512vnni", __m512i, _mm512_set1_epi16, DPBUSD_512)
#define FMA_512(c) HIDE(a) c = _mm512_fmadd_ps(a, b, c);
LOOP(fma_512, "avx512f", __m512, _mm512_set1_ps, FMA_512)
#undef REGISTER

/* Linux hands out the AMX tiles on request only; GCC 12 can't ask the CPU for AMX by name. */
static int amx_permitted(void) {
  enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
  unsigned a = 7, b, c = 0, d;
  __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  int has_tile = d >> 24 & 1, has_int8 = d >> 25 & 1;
  return has_tile && has_int8 && !syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA);
}

__attribute__((target("amx-tile,amx-int8"), noinline)) static void tdpbusd(long iterations) {
  static const struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t column_bytes[16];
    uint8_t rows[16];
  } config = {1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
  _tile_loadconfig(&config);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
  for (long n = 0; n < iterations; n++) {
    _tile_dpbusd(0, 4, 6);
    _tile_dpbusd(1, 4, 7);
    _tile_dpbusd(2, 5, 6);
    _tile_dpbusd(3, 5, 7);
  }
  _tile_release();
}

static void report(const char *name, void (*loop)(long), long iterations, double macs_per_iteration) {
  double best = 1e9;
  loop(iterations / 4);
  for (int trial = 0; trial < TRIALS; trial++) {
    double start = now();
    loop(iterations);
    double taken = now() - start;
    if (taken < best) best = taken;
  }
  printf("%s %.2f\n", name, (double)iterations * macs_per_iteration / best * 1e-9);
}

#define REPORT(FEATURE, LOOP_, MACS) \
  if (FEATURE) report(#LOOP_, LOOP_, ITERATIONS, (double)(MACS)*ACCUMULATORS)

int main(void) {
  __builtin_cpu_init();
  int avx2 = __builtin_cpu_supports("avx2"), avx512 = __builtin_cpu_supports("avx512bw");
  int vnni = avx512 && __builtin_cpu_supports("avx512vnni");
  unsigned a = 7, b, c = 1, d;
  __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  REPORT(avx2, maddubs_256, 32);
  REPORT(avx2, madd_256, 16);
  REPORT(avx2 && __builtin_cpu_supports("fma"), fma_256, 8);
  REPORT(avx2 && (a >> 4 & 1), dpbusd_avx_256, 32);
  REPORT(avx512, maddubs_512, 64);
  REPORT(vnni && __builtin_cpu_supports("avx512vl"), dpbusd_256, 32);
  REPORT(vnni, dpbusd_512, 64);
  REPORT(avx512, fma_512, 16);
  if (amx_permitted()) report("tdpbusd", tdpbusd, ITERATIONS / 4, 4.0 * 16 * 16 * 64);
  return 0;
}
