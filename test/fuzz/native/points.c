/* The indexer's decompressor: the size of the pieces must not matter, and a window must be what came out before it. */
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "../../../native/src/oci.h"
#include "../../../native/src/points.h"
#include "fuzz.h"

enum { OUTPUT_MAX = 4 << 20, STORED = 40960, WINDOW = 32768 };

struct outcome {
  uint8_t sha256[32];
  uint64_t produced, members;
  int status;
};

static void start(const char *folder) { (void)folder; }

static void check_window(struct oci_points *points, const uint8_t *tail, size_t tail_length) {
  uint8_t *stored = malloc(STORED), window[WINDOW];
  uint32_t inflated = 0;
  if (stored == NULL) abort();
  int32_t length = oci_points_window(points, stored, STORED, &inflated);
  fuzz_promise(length >= 0 && length <= STORED && inflated <= WINDOW, "a window is no window");
  if (length > 0) {
    z_stream z = {.next_in = stored, .avail_in = (uInt)length, .next_out = window, .avail_out = sizeof window};
    fuzz_promise(inflateInit2(&z, -15) == Z_OK && inflate(&z, Z_FINISH) == Z_STREAM_END, "a window does not inflate");
    fuzz_promise(z.total_out == inflated, "a window has another length");
    inflateEnd(&z);
    size_t compared = inflated < tail_length ? inflated : tail_length;
    fuzz_promise(memcmp(window + inflated - compared, tail + tail_length - compared, compared) == 0,
                 "a window is not the output before it");
  }
  free(stored);
}

static struct outcome inflate_in_pieces(int kind, const uint8_t *bytes, size_t length, uint32_t piece_max) {
  struct outcome outcome = {.status = OCI_POINTS_INPUT};
  struct oci_points *points = oci_points_open(kind);
  if (points == NULL) abort();
  struct sha256 sha;
  sha256_init(&sha);
  uint8_t tail[WINDOW];
  size_t tail_length = 0, at = 0, calls = 0;
  while (outcome.produced < OUTPUT_MAX) {
    size_t in_length = 1 + fuzz_random(piece_max), out_length = 1 + fuzz_random(piece_max);
    if (in_length > length - at) in_length = length - at;
    uint8_t *in = fuzz_copy(bytes + at, in_length), *out = malloc(out_length);
    if (out == NULL) abort();
    struct oci_points_result result;
    oci_points_step(points, in, in_length, out, out_length, calls % 3 == 0, &result);
    fuzz_promise(result.consumed <= in_length && result.produced <= out_length, "it says more than there was");
    fuzz_promise(result.status != OCI_POINTS_OUTPUT || result.produced > 0 || result.consumed > 0 || calls < 1u << 20,
                 "it does not go on");
    sha256_update(&sha, out, result.produced);
    outcome.produced += result.produced;
    size_t copied = result.produced < WINDOW ? result.produced : WINDOW, kept = WINDOW - copied;
    if (kept > tail_length) kept = tail_length;
    memmove(tail, tail + tail_length - kept, kept);
    memcpy(tail + kept, out + result.produced - copied, copied);
    tail_length = kept + copied;
    free(in);
    free(out);
    at += result.consumed;
    calls++;
    outcome.status = result.status;
    if (result.status == OCI_POINTS_MEMBER_END) {
      outcome.members++;
      tail_length = 0;
    }
    if (result.status == OCI_POINTS_BLOCK) {
      fuzz_promise(result.unused_bits >= 0 && result.unused_bits < 8, "more bits than a byte has");
      check_window(points, tail, tail_length);
    }
    if (result.status < 0 || result.status == OCI_POINTS_TRAILING) break;
    if (result.status == OCI_POINTS_INPUT && at == length) break;
  }
  (void)oci_points_problem(points);
  oci_points_close(points);
  sha256_final(&sha, outcome.sha256);
  return outcome;
}

static void run(const uint8_t *bytes, size_t length) {
  if (length == 0) return;
  int kind = bytes[0] % 2 == 0 ? OCI_POINTS_GZIP : OCI_POINTS_ZSTD;
  struct outcome large = inflate_in_pieces(kind, bytes + 1, length - 1, 1 << 20);
  struct outcome small = inflate_in_pieces(kind, bytes + 1, length - 1, 2000);
  if (large.produced >= OUTPUT_MAX || small.produced >= OUTPUT_MAX) return;
  fuzz_promise(large.status == small.status && large.members == small.members, "pieces make another end");
  /* Before an error zlib and zstd may hold back output that they have. */
  if (large.status < 0) return;
  fuzz_promise(large.produced == small.produced, "pieces make another length");
  fuzz_promise(memcmp(large.sha256, small.sha256, 32) == 0, "pieces make other bytes");
}

const struct fuzz_target points_target = {"points", start, run};
