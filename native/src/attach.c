/*
 * Showing a file or directory of the host at another place: a clone of its mount (open_tree(2)) with attributes of its own
 * and, where a map is given, with other owners (mount_setattr(2), MOUNT_ATTR_IDMAP). The clone alone: what is mounted below
 * the directory is not shown.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "oci.h"

#ifndef MOUNT_ATTR_IDMAP
#error "needs kernel headers of 5.12 or newer"
#endif
#ifndef OPEN_TREE_CLOEXEC
#define OPEN_TREE_CLOEXEC O_CLOEXEC
#endif
enum { PROPAGATION_PRIVATE = 1 << 18 }; /* MS_PRIVATE, whose header does not go with <linux/mount.h> */

struct attaching {
  char *source, *target, *map;
  uint32_t attributes, job;
  bool follow;
};

static void attaching_free(struct attaching *wanted) {
  free(wanted->source);
  free(wanted->target);
  free(wanted->map);
  free(wanted);
}

/* The first process of a new user namespace. It shares our memory and so must touch none of it. */
static int hold(void *unused) {
  (void)unused;
  syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  while (true) syscall(SYS_pause);
  return 0;
}

static int write_map(pid_t pid, const char *which, const char *map) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, which);
  return write_text(path, map);
}

/* A descriptor of a user namespace with these maps of users and groups, or -errno. */
static int open_user_namespace(const char *map) {
  enum { STACK = 16 * 1024 };
  char *stack = malloc(STACK);
  if (stack == NULL) return -ENOMEM;
  pid_t pid = clone(hold, stack + STACK, CLONE_VM | CLONE_NEWUSER, NULL);
  if (pid < 0) {
    int error = errno;
    free(stack);
    return -error;
  }
  int error = write_map(pid, "uid_map", map);
  if (error == 0) error = write_map(pid, "gid_map", map);
  int fd = -1;
  if (error == 0) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/ns/user", (int)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) error = errno;
  }
  kill(pid, SIGKILL);
  while (waitpid(pid, NULL, __WALL) < 0 && errno == EINTR) continue;
  free(stack);
  return error == 0 ? fd : -error;
}

static int open_source(const struct attaching *wanted) {
  struct open_how how = {.flags = O_PATH | O_CLOEXEC,
                         .resolve = RESOLVE_NO_MAGICLINKS | (wanted->follow ? 0 : RESOLVE_NO_SYMLINKS)};
  int fd;
  do fd = (int)syscall(SYS_openat2, AT_FDCWD, wanted->source, &how, sizeof how);
  while (fd < 0 && errno == EAGAIN); /* something was renamed meanwhile */
  return fd < 0 ? -errno : fd;
}

/* What the clone is put upon: a directory for a directory, a file for what is none. */
static int make_target(int source, const char *target) {
  struct stat st;
  if (fstat(source, &st) != 0) return -errno;
  if (S_ISDIR(st.st_mode)) return mkdir(target, 0700) == 0 || errno == EEXIST ? 0 : -errno;
  int fd = open(target, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return -errno;
  close(fd);
  return 1;
}

static int set_attributes(int tree, const struct attaching *wanted) {
  struct mount_attr attributes = {.attr_set = wanted->attributes, .propagation = PROPAGATION_PRIVATE};
  int users = -1;
  if (wanted->map != NULL) {
    users = open_user_namespace(wanted->map);
    if (users < 0) return users;
    attributes.attr_set |= MOUNT_ATTR_IDMAP;
    attributes.userns_fd = (uint64_t)users;
  }
  int result = syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &attributes, sizeof attributes) == 0 ? 0 : -errno;
  if (users >= 0) close(users);
  return result;
}

static int attach(const struct attaching *wanted) {
  int source = open_source(wanted);
  if (source < 0) return source;
  int result = 0, kind = 0;
  int tree = (int)syscall(SYS_open_tree, source, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
  if (tree < 0) result = -errno;
  if (result == 0) result = set_attributes(tree, wanted);
  if (result == 0) result = kind = make_target(source, wanted->target);
  if (result >= 0 && syscall(SYS_move_mount, tree, "", AT_FDCWD, wanted->target, MOVE_MOUNT_F_EMPTY_PATH) != 0)
    result = -errno;
  if (tree >= 0) close(tree);
  close(source);
  return result < 0 ? result : kind;
}

static void *run_attach(void *argument) {
  struct attaching *wanted = argument;
  int result = attach(wanted);
  uint32_t job = wanted->job;
  attaching_free(wanted);
  post_done(job, result);
  return NULL;
}

/*
 * Shows `source` at `target`, which is made if it is not there. `attributes`: MOUNT_ATTR_*. `map`: lines of uid_map and
 * gid_map (user_namespaces(7)), first what the source has, then what is shown; empty: owners as they are. Without `follow`, a
 * symbolic link anywhere in `source` is ELOOP. The job ends with 0 for a directory, 1 for anything else, or -errno; EINVAL
 * with a map mostly means that the file system cannot do it.
 */
int oci_attach(const char *source, const char *target, const char *map, uint32_t attributes, bool follow, uint32_t job) {
  struct attaching *wanted = calloc(1, sizeof *wanted);
  if (wanted == NULL) return -ENOMEM;
  *wanted = (struct attaching){.source = strdup(source), .target = strdup(target), .attributes = attributes,
                               .follow = follow, .job = job, .map = map[0] == '\0' ? NULL : strdup(map)};
  bool whole = wanted->source != NULL && wanted->target != NULL && (map[0] == '\0' || wanted->map != NULL);
  int error = whole ? spawn_apart(run_attach, wanted) : ENOMEM;
  if (error != 0) attaching_free(wanted);
  return -error;
}
