/*
 * A span that begins in the middle of a gzip member, made into one whole deflate stream (RFC 1951) for a decompressor
 * that knows whole streams only and is more than twice as fast for it: the window as a stored block, the span's blocks
 * moved to the byte boundary behind it, and an empty last block where the span ends. Possible because spans begin and
 * end between blocks.
 */
#include <string.h>

#include "splice.h"

enum { STORED_HEADER = 5 };
/* BFINAL = 1, BTYPE = 01, then the seven zero bits of "end of block". */
static const uint32_t empty_last_block = 3;
enum { EMPTY_BLOCK_BITS = 10 };

static size_t put_window(uint8_t *out, const uint8_t *window, size_t length) {
  if (length == 0) return 0;
  out[0] = 0; /* not the last, stored; the rest of the byte is padding */
  out[1] = (uint8_t)length;
  out[2] = (uint8_t)(length >> 8);
  out[3] = (uint8_t)~out[1];
  out[4] = (uint8_t)~out[2];
  memcpy(out + STORED_HEADER, window, length);
  return STORED_HEADER + length;
}

/* Copies without the first `skip` bits (1 to 7): as many bytes, of which the last one is short by so many bits. */
static void copy_shifted(uint8_t *out, const uint8_t *in, size_t length, unsigned skip) {
  size_t i = 0;
  for (; i + 9 <= length; i += 8) {
    uint64_t word;
    memcpy(&word, in + i, sizeof word);
    word = word >> skip | (uint64_t)in[i + 8] << (64 - skip);
    memcpy(out + i, &word, sizeof word);
  }
  for (; i < length; i++) out[i] = (uint8_t)(in[i] >> skip | (i + 1 < length ? in[i + 1] << (8 - skip) : 0));
}

size_t splice_stream(uint8_t *out, const uint8_t *window, size_t window_length, const struct splice *span) {
  if (span->length == 0 || span->skip_bits > 7 || span->last_byte_bits > 8 || window_length > 0xffff) return 0;
  size_t at = put_window(out, window, window_length);
  uint8_t *blocks = out + at;
  if (span->skip_bits == 0) memcpy(blocks, span->bytes, span->length);
  else copy_shifted(blocks, span->bytes, span->length, span->skip_bits);
  if (span->last_byte_bits == 0) return at + span->length;
  uint64_t end = (uint64_t)(span->length - 1) * 8 + span->last_byte_bits;
  if (end < span->skip_bits) return 0;
  end -= span->skip_bits;
  uint8_t *last = blocks + end / 8;
  unsigned used = end % 8;
  uint32_t tail = (used == 0 ? 0 : *last & ((1u << used) - 1)) | empty_last_block << used;
  for (int i = 0; i < 3; i++) last[i] = (uint8_t)(tail >> (8 * i));
  return at + (end + EMPTY_BLOCK_BITS + 7) / 8;
}
