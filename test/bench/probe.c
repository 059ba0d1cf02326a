// probe ROOT NAMES: goes through the paths in NAMES below ROOT and prints the nanoseconds per call, the fastest of five
// passes each: {"stat": …, "open": …, "read4k": …, "missing": …}
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { names_max = 4096, passes = 5 };
static char *names[names_max], *absent[names_max];
static int count;
static char buffer[4096];

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
  long got = pread(fd, buffer, sizeof buffer, 0);
  close(fd);
  return got == sizeof buffer ? 0 : -1;
}

static int do_missing(int i) {
  struct stat st;
  return stat(absent[i], &st) == 0 ? -1 : 0;
}

static double fastest(int (*call)(int)) {
  double best = 1e18;
  for (int pass = 0; pass <= passes; pass++) {
    double start = now();
    for (int i = 0; i < count; i++) {
      if (call(i) != 0) {
        fprintf(stderr, "%s: a call failed\n", names[i]);
        exit(1);
      }
    }
    double each = (now() - start) / count;
    if (pass > 0 && each < best) best = each;
  }
  return best;
}

int main(int argc, char **argv) {
  static char line[8192];
  FILE *list = argc == 3 ? fopen(argv[2], "r") : NULL;
  if (list == NULL || chdir(argv[1]) != 0) {
    perror("probe");
    return 1;
  }
  while (count < names_max && fgets(line, sizeof line - 16, list) != NULL) {
    line[strcspn(line, "\n")] = 0;
    names[count] = strdup(line);
    absent[count++] = strdup(strcat(line, ".absent"));
  }
  if (count == 0) return 1;
  printf("{\"stat\": %.1f, \"open\": %.1f, \"read4k\": %.1f, \"missing\": %.1f}\n", fastest(do_stat), fastest(do_open),
         fastest(do_read), fastest(do_missing));
  return 0;
}
