// probe calls ROOT NAMES   goes through the paths in NAMES below ROOT: {"stat": …, "open": …, "read4k": …, "missing": …}
// probe file PATH          reads a file at random and from end to end:  {"random4k": …, "sequential": …}
// probe walk ROOT          stats everything below ROOT once:            {"walk": …, "entries": …}
//
// Prints nanoseconds per call, per MiB for "sequential", for the whole of a walk; of calls and reads the fastest of five
// passes, of a walk the one that there is.
#define _GNU_SOURCE
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { names_max = 4096, passes = 5, random_reads = 20000, block = 1 << 20 };
static char *names[names_max], *absent[names_max];
static int count;
static char buffer[block];
static int file;
static long pages, blocks, entries;

static double now(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return at.tv_sec * 1e9 + at.tv_nsec;
}

static int do_stat(int i) {
  struct stat st;
  return stat(names[i], &st);
}

static int do_open(int i) {
  int fd = open(names[i], O_RDONLY);
  return fd < 0 ? -1 : close(fd);
}

static int do_read(int i) {
  int fd = open(names[i], O_RDONLY);
  if (fd < 0) return -1;
  long got = pread(fd, buffer, 4096, 0);
  close(fd);
  return got == 4096 ? 0 : -1;
}

static int do_missing(int i) {
  struct stat st;
  return stat(absent[i], &st) == 0 ? -1 : 0;
}

static int do_random(int i) {
  long page = (i * 2654435761UL) % pages;
  return pread(file, buffer, 4096, page * 4096) == 4096 ? 0 : -1;
}

static int do_sequential(int i) {
  return pread(file, buffer, block, (long)i * block) == block ? 0 : -1;
}

static double fastest(int (*call)(int), int calls) {
  double best = 1e18;
  for (int pass = 0; pass <= passes; pass++) {
    double start = now();
    for (int i = 0; i < calls; i++) {
      if (call(i) != 0) {
        fprintf(stderr, "call %d failed\n", i);
        exit(1);
      }
    }
    double each = (now() - start) / calls;
    if (pass > 0 && each < best) best = each;
  }
  return best;
}

static int probe_calls(const char *root, const char *list_path) {
  static char line[8192];
  FILE *list = fopen(list_path, "r");
  if (list == NULL || chdir(root) != 0) return -1;
  while (count < names_max && fgets(line, sizeof line - 16, list) != NULL) {
    line[strcspn(line, "\n")] = 0;
    names[count] = strdup(line);
    absent[count++] = strdup(strcat(line, ".absent"));
  }
  if (count == 0) return -1;
  printf("{\"stat\": %.1f, \"open\": %.1f, \"read4k\": %.1f, \"missing\": %.1f}\n", fastest(do_stat, count),
         fastest(do_open, count), fastest(do_read, count), fastest(do_missing, count));
  return 0;
}

static int probe_file(const char *path) {
  struct stat st;
  file = open(path, O_RDONLY);
  if (file < 0 || fstat(file, &st) != 0) return -1;
  pages = st.st_size / 4096, blocks = st.st_size / block;
  // In this order: a file that is first read at random is kept in pieces of a page each, and copied the slower.
  double sequential = fastest(do_sequential, blocks), random = fastest(do_random, random_reads);
  printf("{\"sequential\": %.1f, \"random4k\": %.1f}\n", sequential, random);
  return 0;
}

static int see(const char *path, const struct stat *st, int type, struct FTW *at) {
  (void)path, (void)st, (void)at;
  entries++;
  return type == FTW_NS || type == FTW_DNR ? -1 : 0;
}

static int probe_walk(const char *root) {
  double start = now();
  if (nftw(root, see, 64, FTW_PHYS | FTW_MOUNT) != 0) return -1;
  printf("{\"walk\": %.1f, \"entries\": %ld}\n", now() - start, entries);
  return 0;
}

int main(int argc, char **argv) {
  int result = -1;
  if (argc == 4 && strcmp(argv[1], "calls") == 0) result = probe_calls(argv[2], argv[3]);
  if (argc == 3 && strcmp(argv[1], "file") == 0) result = probe_file(argv[2]);
  if (argc == 3 && strcmp(argv[1], "walk") == 0) result = probe_walk(argv[2]);
  if (result != 0) perror("probe");
  return result == 0 ? 0 : 1;
}
