/* CRC32C (RFC 3720, appendix B.4): SSE 4.2 where the processor has it, a table elsewhere. */
#include "oci.h"

typedef uint32_t (*update_fn)(uint32_t crc, const uint8_t *data, size_t length);

static uint32_t table[256];

static uint32_t update_portable(uint32_t crc, const uint8_t *data, size_t length) {
  for (size_t i = 0; i < length; i++) crc = (crc >> 8) ^ table[(crc ^ data[i]) & 0xff];
  return crc;
}

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#include <string.h>

__attribute__((target("sse4.2"))) static uint32_t update_sse(uint32_t crc, const uint8_t *data, size_t length) {
  uint64_t wide = crc;
  for (; length >= 8; data += 8, length -= 8) {
    uint64_t word;
    memcpy(&word, data, 8);
    wide = _mm_crc32_u64(wide, word);
  }
  crc = (uint32_t)wide;
  for (; length > 0; data++, length--) crc = _mm_crc32_u8(crc, *data);
  return crc;
}

static bool have_sse(void) {
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & (1u << 20));
}
#else
static uint32_t update_sse(uint32_t crc, const uint8_t *data, size_t length) { return update_portable(crc, data, length); }
static bool have_sse(void) { return false; }
#endif

static update_fn update = update_portable;

__attribute__((constructor)) static void prepare(void) {
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78 : 0);
    table[i] = crc;
  }
  if (have_sse()) update = update_sse;
}

uint32_t crc32c(uint32_t crc, const void *data, size_t length) { return ~update(~crc, data, length); }

/* For the test vectors. -1: this processor lacks what the wanted code needs. */
int64_t oci_crc32c(const void *data, uint64_t length, bool portable) {
  if (!portable && !have_sse()) return -1;
  return (uint32_t)~(portable ? update_portable : update_sse)(~0u, data, length);
}
