/*
 * Linux calls that JavaScript cannot make or must not wait for. Those that can block run on a thread of their own and
 * end with a job's event; `text` (OCI_ERROR_TEXT bytes, JavaScript keeps it alive) gets what the kernel had to say.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <linux/mount.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "oci.h"

/* <sys/mount.h> and <linux/mount.h> cannot be included together on older distributions. */
int umount2(const char *target, int flags);
int mount(const char *source, const char *target, const char *type, unsigned long flags, const void *data);
#ifndef LOOP_CONFIGURE
#error "needs kernel headers of 5.8 or newer"
#endif

int write_text(const char *path, const char *text) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return errno;
  int error = write(fd, text, strlen(text)) < 0 ? errno : 0;
  close(fd);
  return error;
}

struct call {
  int (*run)(struct call *call);
  uint32_t job;
  int32_t number;
  uint64_t flags;
  char *text;
  char *first, *second, *third;
  uint8_t *data;
  size_t length;
};

static void call_free(struct call *call) {
  free(call->first);
  free(call->second);
  free(call->third);
  free(call->data);
  free(call);
}

static void *call_run(void *argument) {
  struct call *call = argument;
  int result = call->run(call);
  uint32_t job = call->job;
  call_free(call);
  post_done(job, result);
  return NULL;
}

static char *copy(const char *text) { return text == NULL ? NULL : strdup(text); }

static int call_start(struct call wanted, const char *first, const char *second, const char *third) {
  struct call *call = malloc(sizeof *call);
  if (call == NULL) {
    free(wanted.data);
    return -ENOMEM;
  }
  *call = wanted;
  call->first = copy(first);
  call->second = copy(second);
  call->third = copy(third);
  int error = spawn_apart(call_run, call);
  if (error != 0) call_free(call);
  return -error;
}

/* ---- mounting with fsopen, fsconfig, fsmount, move_mount: no limit of one page, no trouble with commas ---- */

/* The kernel's messages about a file system context: lines that begin with "e ", "w " or "i ". */
static void read_messages(int fs, char *text) {
  size_t used = 0;
  while (used + 2 < OCI_ERROR_TEXT) {
    ssize_t got = read(fs, text + used, OCI_ERROR_TEXT - used - 2);
    if (got <= 0) break;
    used += (size_t)got;
    if (text[used - 1] != '\n') text[used++] = '\n';
  }
  text[used] = '\0';
}

enum { FSCONFIG_STRING_MAX = 255, HELD_MAX = 512 };

/* fsconfig takes strings of up to 255 bytes: a longer path goes in as a descriptor's name. /proc/self is the process,
 * whose table of descriptors is not ours, so /proc/thread-self. */
static int shorten(const char **value, char name[64]) {
  if (strlen(*value) <= FSCONFIG_STRING_MAX) return -1;
  int fd = open(*value, O_PATH | O_CLOEXEC);
  if (fd < 0) return -1; /* the kernel will say what is wrong with it */
  snprintf(name, 64, "/proc/thread-self/fd/%d", fd);
  *value = name;
  return fd;
}

/* `data`: repeated type byte ('s' string, 'p' path, 'f' flag), key, NUL, and but for 'f' value, NUL; already checked. */
static int configure(int fs, const uint8_t *data, size_t length) {
  const char *at = (const char *)data, *end = at + length;
  int held[HELD_MAX], held_count = 0, result = 0;
  while (at < end && result == 0 && held_count < HELD_MAX) {
    char type = *at++, name[64];
    const char *key = at, *value = NULL;
    at += strlen(key) + 1;
    if (type != 'f') {
      value = at;
      at += strlen(value) + 1;
    }
    int fd = type == 'p' ? shorten(&value, name) : -1;
    if (fd >= 0) held[held_count++] = fd;
    if (syscall(SYS_fsconfig, fs, type == 'f' ? FSCONFIG_SET_FLAG : FSCONFIG_SET_STRING, key, value, 0) != 0)
      result = -errno;
  }
  if (result == 0 && at < end) result = -E2BIG;
  if (result == 0 && syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) != 0) result = -errno;
  while (held_count > 0) close(held[--held_count]);
  return result;
}

static int run_mount(struct call *call) {
  int fs = (int)syscall(SYS_fsopen, call->first, FSOPEN_CLOEXEC);
  if (fs < 0) return -errno;
  int result = configure(fs, call->data, call->length);
  int mounted = -1;
  if (result == 0) {
    mounted = (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, (unsigned)call->flags);
    if (mounted < 0) result = -errno;
  }
  if (result == 0 && syscall(SYS_move_mount, mounted, "", AT_FDCWD, call->second, MOVE_MOUNT_F_EMPTY_PATH) != 0)
    result = -errno;
  if (result != 0) read_messages(fs, call->text);
  if (mounted >= 0) close(mounted);
  close(fs);
  return result;
}

static bool parameters_are_whole(const uint8_t *data, uint64_t length) {
  uint64_t at = 0;
  while (at < length) {
    int strings = data[at] == 's' || data[at] == 'p' ? 2 : data[at] == 'f' ? 1 : 0;
    if (strings == 0) return false;
    for (at++; strings > 0; strings--) {
      const uint8_t *end = at < length ? memchr(data + at, 0, length - at) : NULL;
      if (end == NULL) return false;
      at = (uint64_t)(end - data) + 1;
    }
  }
  return true;
}

int oci_mount(const char *type, const uint8_t *parameters, uint64_t length, uint32_t attributes, const char *target,
              char *text, uint32_t job) {
  if (!parameters_are_whole(parameters, length)) return -EINVAL;
  uint8_t *data = malloc(length + 1);
  if (data == NULL) return -ENOMEM;
  memcpy(data, parameters, length);
  text[0] = '\0';
  return call_start((struct call){.run = run_mount, .job = job, .flags = attributes, .text = text, .data = data,
                                  .length = length},
                    type, target, NULL);
}

static int run_umount(struct call *call) { return umount2(call->first, (int)call->flags) == 0 ? 0 : -errno; }

int oci_umount(const char *target, uint32_t flags, uint32_t job) {
  return call_start((struct call){.run = run_umount, .job = job, .flags = flags}, target, NULL, NULL);
}

/* ---- FUSE connections ---- */
static int run_abort(struct call *call) {
  char path[64];
  snprintf(path, sizeof path, "/sys/fs/fuse/connections/%d/abort", call->number);
  int error = write_text(path, "1");
  if (error != ENOENT || access("/sys/fs/fuse/connections", F_OK) != 0) return -error;
  /* Not there: the connection is over, or fusectl is not mounted. */
  if (mount("fusectl", "/sys/fs/fuse/connections", "fusectl", 0, NULL) != 0 && errno != EBUSY) return -errno;
  return -write_text(path, "1");
}

int oci_fuse_abort(uint32_t minor, uint32_t job) {
  return call_start((struct call){.run = run_abort, .job = job, .number = (int32_t)minor}, NULL, NULL, NULL);
}

/* ---- loop devices ---- */
static int open_free_loop(int control, int access, int *number) {
  *number = ioctl(control, LOOP_CTL_GET_FREE);
  if (*number < 0) return -errno;
  char path[32];
  snprintf(path, sizeof path, "/dev/loop%d", *number);
  int fd = open(path, access | O_CLOEXEC);
  return fd < 0 ? -errno : fd;
}

static int attach(int control, int file, uint32_t flags, const char *name) {
  struct loop_config config = {.fd = (uint32_t)file, .block_size = 0};
  config.info.lo_flags = flags;
  strncpy((char *)config.info.lo_file_name, name, LO_NAME_SIZE - 1);
  for (int tries = 0; tries < 64; tries++) { /* others race for the same free device */
    int number, loop = open_free_loop(control, flags & LO_FLAGS_READ_ONLY ? O_RDONLY : O_RDWR, &number);
    if (loop < 0) return loop;
    int error = ioctl(loop, LOOP_CONFIGURE, &config) == 0 ? 0 : errno;
    close(loop);
    if (error == 0) return number;
    if (error != EBUSY) return -error;
  }
  return -EBUSY;
}

static int run_loop_attach(struct call *call) {
  int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
  if (control < 0) return -errno;
  int file = open(call->first, (call->flags & LO_FLAGS_READ_ONLY ? O_RDONLY : O_RDWR) | O_CLOEXEC);
  int number = file < 0 ? -errno : attach(control, file, (uint32_t)call->flags, call->first);
  if (file >= 0) close(file);
  close(control);
  if (number >= 0 && call->number > 0) {
    char path[64], text[16];
    snprintf(path, sizeof path, "/sys/block/loop%d/queue/read_ahead_kb", number);
    snprintf(text, sizeof text, "%d", call->number);
    write_text(path, text);
  }
  return number;
}

/* The job's result is the device's number. */
int oci_loop_attach(const char *file, bool direct_io, bool read_only, uint32_t read_ahead_kb, uint32_t job) {
  uint64_t flags = (direct_io ? LO_FLAGS_DIRECT_IO : 0) | (read_only ? LO_FLAGS_READ_ONLY : 0);
  return call_start((struct call){.run = run_loop_attach, .job = job, .flags = flags, .number = (int32_t)read_ahead_kb},
                    file, NULL, NULL);
}

/* On a device in use this means: detach as soon as it is not. */
static int run_loop_detach(struct call *call) {
  int loop = open(call->first, O_RDONLY | O_CLOEXEC);
  if (loop < 0) return -errno;
  int result = ioctl(loop, LOOP_CLR_FD) == 0 || errno == ENXIO ? 0 : -errno;
  close(loop);
  return result;
}

int oci_loop_detach(const char *device, uint32_t job) {
  return call_start((struct call){.run = run_loop_detach, .job = job}, device, NULL, NULL);
}

/* ---- file systems that nobody needs any more ---- */
#define FS_IOC_SHUTDOWN_ _IOR('X', 125, uint32_t) /* of ext4, xfs, f2fs; in no header of ours */
enum { SHUTDOWN_NO_FLUSH = 2 };

static int run_shutdown(struct call *call) {
  int fd = open(call->first, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return -errno;
  uint32_t how = SHUTDOWN_NO_FLUSH;
  int result = ioctl(fd, FS_IOC_SHUTDOWN_, &how) == 0 ? 0 : -errno;
  close(fd);
  return result;
}

/* Makes the file system at `path` forget what it has not written yet: its unmount then waits for nothing. */
int oci_shutdown(const char *path, uint32_t job) {
  return call_start((struct call){.run = run_shutdown, .job = job}, path, NULL, NULL);
}

/* ---- processes ---- */
static int run_wait_exit(struct call *call) {
  int fd = (int)syscall(SYS_pidfd_open, call->number, 0);
  if (fd < 0) return errno == ESRCH ? 0 : -errno;
  struct pollfd wait = {.fd = fd, .events = POLLIN};
  int ready;
  do ready = poll(&wait, 1, -1);
  while (ready < 0 && errno == EINTR);
  int result = ready < 0 ? -errno : 0;
  close(fd);
  return result;
}

/* The job ends when the process (anybody's child) has ended. */
int oci_wait_exit(int32_t pid, uint32_t job) {
  return call_start((struct call){.run = run_wait_exit, .job = job, .number = pid}, NULL, NULL, NULL);
}

int oci_pidfd_open(int32_t pid) {
  int fd = (int)syscall(SYS_pidfd_open, pid, 0);
  return fd < 0 ? -errno : fd;
}

int oci_pidfd_signal(int32_t fd, int32_t signal) {
  return syscall(SYS_pidfd_send_signal, fd, signal, NULL, 0) == 0 ? 0 : -errno;
}

int oci_flock(int32_t fd, int32_t operation) { return flock(fd, operation) == 0 ? 0 : -errno; }

int oci_close(int32_t fd) { return close(fd) == 0 ? 0 : -errno; }

/*
 * A better niceness for the calling thread alone: who is started from it, thread or process, begins at 0 again
 * (SCHED_RESET_ON_FORK, sched(7)). 0 or -errno.
 */
int oci_prefer_thread(int niceness) {
  const struct sched_param none = {0};
  if (sched_setscheduler(0, SCHED_OTHER | SCHED_RESET_ON_FORK, &none) != 0) return -errno;
  return setpriority(PRIO_PROCESS, 0, niceness) == 0 ? 0 : -errno;
}

const char *oci_errno_name(int32_t number) {
  const char *name = strerrorname_np(number);
  return name == NULL ? "EUNKNOWN" : name;
}
