#ifndef OCI_INTERACTIVE_H
#define OCI_INTERACTIVE_H

/* Runs a program at a terminal until it ends; the exit code. */
int terminal(int rows, int columns, char **argv);
/* Keeps a container's standard input open until END is there, or its monitor is gone. */
int keep_stdin(const char *socket_path, const char *end_path);

#endif
