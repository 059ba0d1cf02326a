/*
 * A blob that somebody made whole, and verified, becomes a layer's cache file: by a rename, so that it is all there or
 * not at all. Its bytes are read once, to be able to tell later that they are still the same.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "oci.h"

struct import {
  char *span_path, *source_path, *cache_path, *map_path;
  char *error;
  uint32_t job;
};

static void import_free(struct import *import) {
  free(import->span_path);
  free(import->source_path);
  free(import->cache_path);
  free(import->map_path);
  free(import);
}

/* On another file system the rename would fail: found out before the map of the file that is there is reset. */
static int open_source(struct blob *blob, const struct import *import) {
  blob->cache_fd = open(import->source_path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  if (blob->cache_fd < 0) return -errno;
  struct stat st, dir;
  char *path = strdup(import->map_path);
  if (path == NULL) return -ENOMEM;
  int result = fstat(blob->cache_fd, &st) != 0 || stat(dirname(path), &dir) != 0 ? -errno : 0;
  free(path);
  if (result != 0) return result;
  if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != blob->spans.header->blob_size) return -EINVAL;
  if (st.st_dev != dir.st_dev) return -EXDEV;
  blob->device = st.st_dev;
  blob->inode = st.st_ino;
  return 0;
}

static int sum_all(const struct blob *blob, uint32_t **checks) {
  uint32_t count = blob->spans.header->span_count;
  *checks = calloc(count + 1u, sizeof **checks);
  if (*checks == NULL) return -ENOMEM;
  for (uint32_t s = 0; s < count; s++)
    if (span_file_has_data(&blob->spans, s) && !prove_sum(blob, s, &(*checks)[s])) return -EILSEQ;
  return 0;
}

static void *run_import(void *argument) {
  struct import *import = argument;
  struct blob *blob = NULL;
  uint32_t job = import->job;
  int result = blob_new(import->span_path, import->cache_path, &blob, import->error);
  if (result == 0) result = open_source(blob, import);
  uint32_t *checks = NULL;
  if (result == 0) result = sum_all(blob, &checks);
  if (result == 0) result = blob_replace(blob, import->source_path, import->map_path, checks);
  free(checks);
  if (result != 0 && blob != NULL) blob_free(blob);
  import_free(import);
  if (result == 0) blob_sync_begin(blob);
  post_done(job, result);
  /* Who opens it now shares it; the clean mark waits for the disk, the caller does not. */
  if (result == 0) blob_sync_end(blob);
  return NULL;
}

/*
 * `source_path`: a whole blob of the size that the span file names, on the cache's file system. The job ends when it
 * is the cache file: 0, or -errno with the reason in `error` (OCI_ERROR_TEXT bytes, alive until then) where there is
 * more to say. -EBUSY: somebody serves the cache file; -EINVAL: not a file of that size; -EILSEQ: bytes where no file has
 * any; -EXDEV; -ENOSPC: for the map.
 */
int oci_blob_import(const char *span_path, const char *source_path, const char *cache_path, const char *map_path,
                    char *error, uint32_t job) {
  error[0] = '\0';
  struct import *import = calloc(1, sizeof *import);
  if (import == NULL) return -ENOMEM;
  *import = (struct import){strdup(span_path), strdup(source_path), strdup(cache_path), strdup(map_path), error, job};
  int result = import->span_path == NULL || import->source_path == NULL || import->cache_path == NULL ||
                       import->map_path == NULL
                   ? ENOMEM
                   : spawn_thread(run_import, import);
  if (result != 0) import_free(import);
  return -result;
}
