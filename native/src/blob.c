/*
 * Layer blobs: one sparse cache file and one span bitmap per layer, shared inside the process by the cache file's path.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "oci.h"

static LIST_HEAD(, blob) blobs = LIST_HEAD_INITIALIZER(blobs);
/* Opening a path twice at the same time must give one blob. Before engine_lock. */
static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t sync_ends = PTHREAD_COND_INITIALIZER; /* with engine_lock */

int blob_read(const struct blob *blob, uint8_t *out, uint64_t offset, size_t length) {
  while (length > 0) {
    ssize_t got = pread(blob->cache_fd, out, length, (off_t)offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno;
    if (got == 0) return EIO; /* somebody cut the cache file */
    out += got;
    offset += (uint64_t)got;
    length -= (size_t)got;
  }
  return 0;
}

void blob_free(struct blob *blob) {
  map_close(blob);
  if (blob->cache_fd >= 0) close(blob->cache_fd);
  span_file_close(&blob->spans);
  pthread_mutex_destroy(&blob->map_lock);
  pthread_mutex_destroy(&blob->write_lock);
  free((void *)blob->bits);
  free((void *)blob->stored);
  free(blob->checks);
  free(blob->states);
  free(blob->cache_path);
  free(blob);
}

static int open_cache(struct blob *blob, int flags) {
  int fd = open(blob->cache_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | flags, 0600);
  if (fd < 0) return -errno;
  struct stat st;
  int result = fstat(fd, &st) != 0 ? -errno : S_ISREG(st.st_mode) ? 0 : -EINVAL;
  if (result != 0) {
    close(fd);
    return result;
  }
  blob->cache_fd = fd;
  blob->device = st.st_dev;
  blob->inode = st.st_ino;
  uint64_t size = blob->spans.header->blob_size;
  return (uint64_t)st.st_size == size || ftruncate(fd, (off_t)size) == 0 ? 0 : -errno;
}

int blob_renew_cache(struct blob *blob) {
  struct stamp stamp;
  if (stamp_take(blob, &stamp) == 0 && stamp.blocks == 0) return 0; /* nothing has ever been in it */
  /* Not cut: a mount that was given the file when it was good may still read it. */
  if (unlink(blob->cache_path) != 0) return -errno;
  close(blob->cache_fd);
  blob->cache_fd = -1;
  return open_cache(blob, O_EXCL);
}

int blob_new(const char *span_path, const char *cache_path, struct blob **out, char *error) {
  struct blob *blob = calloc(1, sizeof *blob);
  if (blob == NULL) return -ENOMEM;
  blob->cache_fd = blob->map_fd = blob->spans.fd = -1;
  blob->refs = 1;
  pthread_mutex_init(&blob->map_lock, NULL);
  pthread_mutex_init(&blob->write_lock, NULL);
  TAILQ_INIT(&blob->parked);
  int result = span_file_open(span_path, &blob->spans, error);
  if (result == 0) span_file_fingerprint(&blob->spans, blob->fingerprint);
  if (result == 0 && (blob->cache_path = strdup(cache_path)) == NULL) result = -ENOMEM;
  if (result == 0) {
    blob->states = calloc(blob->spans.header->span_count + 1u, sizeof *blob->states);
    if (blob->states == NULL) result = -ENOMEM;
  }
  if (result == 0) *out = blob;
  else blob_free(blob);
  return result;
}

static int blob_create(const struct blob_paths *paths, bool verify, struct blob **out, char *error) {
  struct blob *blob;
  int result = blob_new(paths->span, paths->cache, &blob, error);
  if (result != 0) return result;
  result = open_cache(blob, 0);
  if (result == 0) result = map_open(blob, paths->map, false, verify);
  if (result == 0 && atomic_load(&blob->unproved) > 0) result = -pool_start();
  if (result != 0) blob_free(blob);
  else *out = blob;
  return result;
}

/* The living blob of a path, with a reference; one whose file was deleted or replaced does not count. */
static struct blob *blob_find(const char *cache_path) {
  struct stat st;
  if (lstat(cache_path, &st) != 0) return NULL;
  struct blob *blob, *found = NULL;
  pthread_mutex_lock(&engine_lock);
  LIST_FOREACH(blob, &blobs, link) {
    if (blob->refs == 0 || strcmp(blob->cache_path, cache_path) != 0) continue;
    if (blob->device != st.st_dev || blob->inode != st.st_ino) continue;
    blob->refs++;
    found = blob;
    break;
  }
  pthread_mutex_unlock(&engine_lock);
  return found;
}

void blob_ref_locked(struct blob *blob) { blob->refs++; }

static bool blob_drop_locked(struct blob *blob) {
  if (--blob->refs > 0) return false;
  LIST_REMOVE(blob, link);
  return true;
}

/* With open_lock held: a blob that is no longer listed must not hold the map's lock any more, or an open would fail. */
static bool blob_put_locked(struct blob *blob) {
  pthread_mutex_lock(&engine_lock);
  bool last = blob_drop_locked(blob);
  pthread_mutex_unlock(&engine_lock);
  if (last) map_close(blob);
  return last;
}

void blob_put(struct blob *blob) {
  pthread_mutex_lock(&open_lock);
  bool last = blob_put_locked(blob);
  pthread_mutex_unlock(&open_lock);
  if (last) blob_free(blob);
}

struct closing {
  struct blob *blob;
  uint32_t job;
};

void blob_sync_begin(struct blob *blob) {
  pthread_mutex_lock(&engine_lock);
  while (blob->syncing) pthread_cond_wait(&sync_ends, &engine_lock);
  blob->syncing = true;
  pthread_mutex_unlock(&engine_lock);
}

int blob_sync_end(struct blob *blob) {
  int error = map_sync(blob);
  pthread_mutex_lock(&open_lock);
  pthread_mutex_lock(&engine_lock);
  /* Together: who waited to release the blob finds it given back. */
  blob->syncing = false;
  pthread_cond_broadcast(&sync_ends);
  bool last = blob_drop_locked(blob);
  pthread_mutex_unlock(&engine_lock);
  if (last) map_close(blob);
  pthread_mutex_unlock(&open_lock);
  if (last) blob_free(blob);
  return error;
}

static void *sync_and_put(void *argument) {
  struct closing closing = *(struct closing *)argument;
  free(argument);
  blob_sync_begin(closing.blob);
  post_done(closing.job, -blob_sync_end(closing.blob));
  return NULL;
}

static void *sync_and_stay(void *blob) {
  blob_sync_end(blob);
  return NULL;
}

void blob_sync_soon(struct blob *blob) {
  pthread_mutex_lock(&engine_lock);
  bool ours = !blob->syncing;
  if (ours) {
    blob->syncing = true;
    blob->refs++;
  }
  pthread_mutex_unlock(&engine_lock);
  if (ours && spawn_thread(sync_and_stay, blob) != 0) blob_sync_end(blob);
}

int blob_sync_and_put(struct blob *blob, uint32_t job) {
  struct closing *closing = malloc(sizeof *closing);
  if (closing == NULL) return ENOMEM;
  *closing = (struct closing){.blob = blob, .job = job};
  int error = spawn_thread(sync_and_put, closing);
  if (error != 0) free(closing);
  return error;
}

/* The caller's span file must cut the layer as the blob's own does. */
static int same_spans(const struct blob *blob, const char *span_path, char *error) {
  struct span_file other;
  uint8_t theirs[32];
  int result = span_file_open(span_path, &other, error);
  if (result != 0) return result;
  span_file_fingerprint(&other, theirs);
  span_file_close(&other);
  if (memcmp(blob->fingerprint, theirs, 32) == 0) return 0;
  snprintf(error, OCI_ERROR_TEXT, "the cache file is in use with another span file");
  return -EBUSY;
}

static void publish(struct blob *blob) {
  pthread_mutex_lock(&engine_lock);
  LIST_INSERT_HEAD(&blobs, blob, link);
  pthread_mutex_unlock(&engine_lock);
}

int blob_open(const struct blob_paths *paths, bool verify, struct blob **out, char *error) {
  pthread_mutex_lock(&open_lock);
  struct blob *blob = blob_find(paths->cache);
  bool found = blob != NULL, last = false;
  int result = found ? same_spans(blob, paths->span, error) : blob_create(paths, verify, &blob, error);
  if (result == 0 && found) blob_look(blob);
  if (result == 0 && !found) publish(blob);
  if (result != 0 && found) last = blob_put_locked(blob);
  pthread_mutex_unlock(&open_lock);
  if (last) blob_free(blob);
  if (result == 0) *out = blob;
  return result;
}

int blob_replace(struct blob *blob, const char *source_path, const char *map_path, const uint32_t *checks) {
  pthread_mutex_lock(&open_lock);
  struct blob *living = blob_find(blob->cache_path);
  bool last = living != NULL && blob_put_locked(living);
  int result = living != NULL ? -EBUSY : map_open(blob, map_path, true, false);
  /* The map names the source's inode: until that stands at the cache's path, whoever opens it believes nothing. */
  if (result == 0) result = map_fill_locked(blob, checks);
  if (result == 0 && rename(source_path, blob->cache_path) != 0) result = -errno;
  struct stamp stamp;
  if (result == 0) result = stamp_take(blob, &stamp);
  if (result == 0) stamp_keep_locked(blob, &stamp);
  if (result == 0) publish(blob);
  pthread_mutex_unlock(&open_lock);
  if (last) blob_free(living);
  return result;
}
