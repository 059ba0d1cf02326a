/*
 * oci-node-interactive terminal ROWS COLUMNS PROGRAM ARGUMENT…
 * oci-node-interactive stdin SOCKET END
 *
 * Two ways to a program that JavaScript cannot go without losing bytes or growing: see terminal.c and stdin.c.
 */
#include <stdlib.h>
#include <string.h>

#include "interactive.h"

enum { USAGE = 125 };

int main(int argc, char **argv) {
  if (argc >= 5 && strcmp(argv[1], "terminal") == 0) return terminal(atoi(argv[2]), atoi(argv[3]), argv + 4);
  if (argc == 4 && strcmp(argv[1], "stdin") == 0) return keep_stdin(argv[2], argv[3]);
  return USAGE;
}
