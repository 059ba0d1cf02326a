/*
 * Reading a small file of a tree that may be one of our own lazy mounts. A thread that waits for FUSE in the kernel may not
 * end when the process is killed (it does while it waits for a page, not while it waits for a request of its own), and
 * what it shares stays: descriptors, and with them locks and ports that the next process needs before it can answer. So
 * the read runs on a thread apart, which shares none.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "oci.h"

struct reading {
  char *root, *path;
  uint8_t *out;
  uint32_t size, job;
};

static void reading_free(struct reading *reading) {
  free(reading->root);
  free(reading->path);
  free(reading);
}

static int open_inside(int root, const char *path) {
  struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
  int fd;
  do fd = (int)syscall(SYS_openat2, root, path, &how, sizeof how);
  while (fd < 0 && errno == EAGAIN); /* something was renamed meanwhile */
  return fd < 0 ? -errno : fd;
}

static int read_whole(int fd, uint8_t *out, uint32_t size) {
  uint32_t used = 0;
  for (;;) {
    uint8_t beyond;
    ssize_t got = used < size ? read(fd, out + used, size - used) : read(fd, &beyond, 1);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return -errno;
    if (got == 0) return (int)used;
    if (used == size) return -EFBIG;
    used += (uint32_t)got;
  }
}

static int read_inside(const struct reading *wanted) {
  int root = open(wanted->root, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (root < 0) return -errno;
  int found = open_inside(root, wanted->path), result = found;
  struct stat st;
  if (found >= 0) {
    char name[64];
    snprintf(name, sizeof name, "/proc/thread-self/fd/%d", found);
    /* Looked at before it is opened for reading: opening a device or a FIFO can do things, or wait. */
    result = fstat(found, &st) != 0 ? -errno : S_ISREG(st.st_mode) ? open(name, O_RDONLY | O_CLOEXEC) : -EISDIR;
    if (result == -1) result = -errno;
    close(found);
  }
  close(root);
  if (result < 0) return result;
  int file = result;
  result = read_whole(file, wanted->out, wanted->size);
  close(file);
  return result;
}

static void *run_read(void *argument) {
  struct reading *wanted = argument;
  int result = read_inside(wanted);
  uint32_t job = wanted->job;
  reading_free(wanted);
  post_done(job, result);
  return NULL;
}

/*
 * Reads a regular file as a process with `root` as its root directory would find it (openat2(2), RESOLVE_IN_ROOT), into
 * `size` bytes that JavaScript keeps alive. The job ends with its length, or -errno; -EISDIR: it is no regular file,
 * -EFBIG: it is longer.
 */
int oci_read_inside(const char *root, const char *path, uint8_t *out, uint32_t size, uint32_t job) {
  struct reading *wanted = calloc(1, sizeof *wanted);
  if (wanted == NULL) return -ENOMEM;
  *wanted = (struct reading){.out = out, .size = size, .job = job, .root = strdup(root), .path = strdup(path)};
  int error = wanted->root == NULL || wanted->path == NULL ? ENOMEM : spawn_apart(run_read, wanted);
  if (error != 0) reading_free(wanted);
  return -error;
}
