#define FUSE_USE_VERSION 312
#include <fuse3/fuse_lowlevel.h>
#include <stdint.h>
#include <zlib.h>
#include <zstd.h>

/* The layout of the calls between TypeScript and this library; src/native/shim.ts refuses another number. */
uint32_t oci_abi_version(void) { return 4; }

const char *oci_fuse_version(void) { return fuse_pkgversion(); }
const char *oci_zlib_version(void) { return zlibVersion(); }
const char *oci_zstd_version(void) { return ZSTD_versionString(); }
