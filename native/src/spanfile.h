/* The span file of a layer; its layout is described in src/index/types.ts. Little-endian hosts only. */
#ifndef OCI_NODE_SPANFILE_H
#define OCI_NODE_SPANFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "span files are read in place: little-endian hosts only"
#endif

enum span_kind {
  SPAN_PLAIN = 0,
  SPAN_GZIP = 1,
  SPAN_ZSTD_FRAMES = 2,
  SPAN_ZSTD_STREAM = 3,
  SPAN_GZIP_CHUNKS = 4,
  SPAN_ZSTD_CHUNKS = 5
};
enum { SPAN_FLAG_MEMBER_START = 1 };
enum { WINDOW_MAX = 32768, WINDOW_STORED_MAX = 65536 };

struct span_header {
  char magic[8];
  uint32_t version, kind;
  uint64_t compressed_size, tar_size, blob_size;
  uint32_t span_count, extent_count;
  uint64_t spans_offset, extents_offset, windows_offset, windows_length;
  uint8_t layer_sha256[32];
  uint64_t packed_extents_length; /* 0: they are not packed */
  uint8_t zero[8];
} __attribute__((packed));

struct span {
  uint64_t comp_offset, comp_length, tar_offset, tar_length, blob_offset;
  uint64_t window_offset; /* of chunks: the bytes of output before the chunk's */
  uint32_t window_stored, window_length;
  uint8_t bits, flags, zero[6];
  uint8_t sha256[32];
} __attribute__((packed));

struct extent {
  uint64_t tar_offset, blob_offset, length;
} __attribute__((packed));

_Static_assert(sizeof(struct span_header) == 128, "span file header");
_Static_assert(sizeof(struct span) == 96, "span");
_Static_assert(sizeof(struct extent) == 24, "extent");

struct span_file {
  int fd; /* for the windows; -1: none */
  uint64_t size;
  struct span_header *header;
  struct span *spans;
  struct extent *extents;
};

/* Reads and checks a span file. The tables are copied, not mapped: a file that is cut or changed later cannot kill the
 * process or change what was checked. 0, -errno, or -EBADMSG with the reason in `error`. */
int span_file_open(const char *path, struct span_file *file, char *error);
void span_file_close(struct span_file *file);
/* Whether spans are chunks of a builder's table, known by the SHA-256 of what they inflate to. */
static inline bool span_file_has_chunks(const struct span_file *file) {
  return file->header->kind == SPAN_GZIP_CHUNKS || file->header->kind == SPAN_ZSTD_CHUNKS;
}
/* Reads a span's window as it is stored. False: it cannot be read. */
bool span_file_window(const struct span_file *file, const struct span *span, uint8_t *out);
/* SHA-256 of header, spans and extents: two files with the same one cut the layer alike. */
void span_file_fingerprint(const struct span_file *file, uint8_t digest[32]);
/* The first extent that ends after the tar offset; the extent count when there is none. */
uint32_t span_file_extent_after_tar(const struct span_file *file, uint64_t tar_offset);
/* The spans that give bytes to [offset, offset + length) of the blob. False: none, it is a hole. */
bool span_file_range(const struct span_file *file, uint64_t offset, uint64_t length, uint32_t *first, uint32_t *last);
/* Whether the span gives any byte to the blob. */
bool span_file_has_data(const struct span_file *file, uint32_t span);

#endif
