#ifndef OCI_NODE_SPLICE_H
#define OCI_NODE_SPLICE_H

#include <stddef.h>
#include <stdint.h>

struct splice {
  const uint8_t *bytes; /* of the span */
  size_t length;
  unsigned skip_bits;      /* low bits of the first byte that belong to the span before: 0 to 7 */
  unsigned last_byte_bits; /* bits of the last byte that belong to this span, 1 to 8; 0: its blocks end the member */
};

enum { SPLICE_EXTRA = 16 };

/* Writes the stream to `out`, which has room for window, span and SPLICE_EXTRA bytes. Returns its length; 0: no stream. */
size_t splice_stream(uint8_t *out, const uint8_t *window, size_t window_length, const struct splice *span);

#endif
