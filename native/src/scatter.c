/* From the tar stream to the aligned blob: a span's bytes go to the places that the extents name. */
#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "oci.h"
#include "piece.h"

enum { VECTORS = 512, BLOCK = 4096 };
static const uint8_t zeros[BLOCK];

static int write_vectors(int fd, struct iovec *vectors, int count, uint64_t offset) {
  while (count > 0) {
    ssize_t written = pwritev(fd, vectors, count, (off_t)offset);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return errno;
    if (written == 0) return ENOSPC;
    offset += (uint64_t)written;
    while (count > 0 && (size_t)written >= vectors->iov_len) {
      written -= (ssize_t)vectors->iov_len;
      vectors++;
      count--;
    }
    if (count > 0) {
      vectors->iov_base = (uint8_t *)vectors->iov_base + written;
      vectors->iov_len -= (size_t)written;
    }
  }
  return 0;
}

int scatter_span(const struct blob *blob, uint32_t index, const uint8_t *tar, uint32_t *check) {
  const struct span_file *file = &blob->spans;
  const struct span *span = &file->spans[index];
  struct iovec vectors[VECTORS];
  struct piece piece;
  int count = 0;
  uint64_t start = 0, next = 0;
  *check = 0;
  for (uint32_t i = span_file_extent_after_tar(file, span->tar_offset); piece_at(file, span, i, &piece); i++) {
    /* Small files lie next to each other but for the rest of a block: written as zeros, they make one long run. */
    uint64_t gap = piece.blob_offset - next;
    if (count > 0 && (gap >= BLOCK || count + 2 > VECTORS)) {
      int error = write_vectors(blob->cache_fd, vectors, count, start);
      if (error != 0) return error;
      count = 0;
    }
    if (count == 0) start = piece.blob_offset;
    else if (gap > 0) vectors[count++] = (struct iovec){.iov_base = (void *)zeros, .iov_len = gap};
    vectors[count++] = (struct iovec){.iov_base = (void *)(tar + piece.tar_offset), .iov_len = piece.length};
    next = piece.blob_offset + piece.length;
    *check = crc32c(*check, tar + piece.tar_offset, piece.length);
  }
  return write_vectors(blob->cache_fd, vectors, count, start);
}

static void scatter_range(const struct blob *blob, uint32_t index, const uint8_t *tar, const uint8_t *picture,
                          uint8_t *out, uint64_t offset, size_t length) {
  const struct span_file *file = &blob->spans;
  const struct span *span = &file->spans[index];
  struct piece piece;
  for (uint32_t i = span_file_extent_after_tar(file, span->tar_offset); piece_at(file, span, i, &piece); i++) {
    if (piece.blob_offset >= offset + length) break;
    uint64_t begin = piece.blob_offset > offset ? piece.blob_offset : offset;
    uint64_t end = piece.blob_offset + piece.length;
    if (end > offset + length) end = offset + length;
    if (begin >= end) continue;
    const uint8_t *from =
        tar != NULL ? tar + piece.tar_offset + (begin - piece.blob_offset) : picture + (begin - offset);
    memcpy(out + (begin - offset), from, end - begin);
  }
}

void scatter_into(const struct blob *blob, uint32_t span, const uint8_t *tar, uint8_t *out, uint64_t offset,
                  size_t length) {
  scatter_range(blob, span, tar, NULL, out, offset, length);
}

void scatter_copy(const struct blob *blob, uint32_t span, const uint8_t *from, uint8_t *to, uint64_t offset,
                  size_t length) {
  scatter_range(blob, span, NULL, from, to, offset, length);
}
