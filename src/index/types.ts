/**
 * The shapes that an index is made of, and the binary layout of a span file. Everything here is content-addressed data
 * about an image: names, places, digests. Never a credential.
 */

/** Bytes per block of the EROFS image and of the aligned layer blobs. */
export const blockBytes = 4096;

/** Uncompressed bytes between two random access points of a gzip layer, at least (and the piece size of a plain tar). */
export const spanBytes = 2 * 1024 * 1024;

export type Compression = "none" | "gzip" | "zstd";

/**
 * One entry of a layer's table of contents, in tar order, after cleaning.
 *
 * Names are byte strings held as latin1 text (one character per byte), since tar names need not be UTF-8.
 */
export interface TocEntry {
  /** Cleaned path: no leading or trailing `/`, no `.`, `..` or empty parts; `""` is the root. */
  readonly path: string;
  /** `whiteout` removes `path` of the layers below; `opaque` hides what lower layers have inside the folder `path`. */
  readonly type: "file" | "dir" | "symlink" | "hardlink" | "char" | "block" | "fifo" | "whiteout" | "opaque";
  /** Permission bits with setuid, setgid and sticky (octal 07777). */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Whole seconds since 1970 (may be negative) and the nanoseconds (0 … 999,999,999) after them. */
  readonly mtimeSeconds: number;
  readonly mtimeNanos: number;
  /** Bytes of a regular file as `stat` shows them (holes included), or of a symlink's target; else 0. */
  readonly size: number;
  /** Symlink: the target as it is. Hardlink: the cleaned path of the entry that it names. */
  readonly link?: string;
  readonly deviceMajor?: number;
  readonly deviceMinor?: number;
  /** Full names (`user.x`, `security.capability`, …) as latin1 text, and raw values. */
  readonly xattrs?: readonly (readonly [name: string, value: Uint8Array])[];
  /**
   * Where a regular file's bytes begin in the layer's aligned blob: a multiple of {@link blockBytes}; -1 when size is 0.
   * A file is one run of `size` bytes there; the holes of a sparse file are places that no extent covers (zeros).
   */
  readonly blobOffset: number;
}

/**
 * A span file tells how to get any part of a layer's aligned blob. Little-endian; read by `native` through mmap.
 *
 * The blob is never stored compressed: it is the layer's file contents in tar order, each file on a 4 KiB boundary.
 * Spans cut the *tar stream*; extents map runs of the tar stream to runs of the blob. Both are sorted, and the mapping
 * is monotone, so a span fills one window of the blob: from its `blobOffset` to the next span's.
 *
 * ```
 * header, 128 bytes
 *   0   8  magic "OCISPAN1"
 *   8   4  version (1)
 *   12  4  kind: 0 plain, 1 gzip (random access), 2 zstd frames (random access), 3 zstd by one streaming pass,
 *          4 chunks in gzip members, 5 chunks in zstd frames
 *   16  8  compressed size of the layer        24  8  tar size (uncompressed bytes of the whole stream)
 *   32  8  blob size (multiple of 4096)        40  4  span count        44  4  extent count
 *   48  8  offset of the span table            56  8  offset of the extent table
 *   64  8  offset of the windows               72  8  length of the windows
 *   80 32  SHA-256 of the compressed layer (its digest)
 *   112 8  length of the extent table when it is packed; 0: it is not      120 8 zero
 * span, 96 bytes
 *   0   8  compressed offset of the first byte to fetch
 *   8   8  compressed length to fetch: neighbours of a gzip layer may share one byte
 *   16  8  tar offset                          24  8  tar length
 *   32  8  blob offset: where the first byte goes that this span or a later one gives to the blob
 *   40  8  window offset (from the start of the windows); of kinds 4 and 5: how many bytes come out before the chunk's
 *   48  4  window length as stored: raw deflate of the up to 32 KiB before the point; 0: no window is needed
 *   52  4  window length inflated
 *   56  1  bits: how many low bits of the first fetched byte belong to the span before (0 … 7)
 *   57  1  flags: bit 0: begins at a gzip member or zstd frame header; else at a deflate block boundary
 *   58  6  zero
 *   64 32  SHA-256 of the compressed bytes [offset, offset+length) of kinds 0, 1, 2; of kinds 3, 4, 5 of the tar bytes
 * extent, 24 bytes
 *   0   8  tar offset        8   8  blob offset        16  8  length
 * extent, packed: three numbers of groups of seven bits, low ones first, the eighth bit set on all bytes but the last
 *   how far behind the end of the extent before it begins in the tar; the same in the blob; length
 * ```
 * For kind 3 the compressed offset and length of every span are 0 and the layer's size.
 *
 * Kinds 4 and 5 are made from the table that an eStargz or zstd:chunked layer brings (`chunk-table.ts`). The "tar stream"
 * is then the chunks' contents alone, one after another: each span is one chunk, verified by the table's digest of it
 * once it is inflated. A member or frame may begin with other chunks (spans of the same compressed range, which differ in
 * what comes out before), and goes on after the chunk: that is cut off.
 */
export const spanFile = {
  magic: "OCISPAN1",
  version: 1,
  headerBytes: 128,
  spanBytes: 96,
  extentBytes: 24,
  /** What a packed extent of a small file takes. */
  packedExtentBytes: 6,
  kinds: { plain: 0, gzip: 1, zstdFrames: 2, zstdStream: 3, gzipChunks: 4, zstdChunks: 5 },
} as const;

export type SpanKind = (typeof spanFile.kinds)[keyof typeof spanFile.kinds];

/** A layer as the image index names it: device N+1 of the EROFS image is the blob of layer N. */
export interface IndexedLayer {
  /** `sha256:…` of the compressed layer, as in the manifest. */
  readonly digest: string;
  readonly mediaType: string;
  /** Compressed bytes. */
  readonly sizeBytes: number;
  readonly tarSizeBytes: number;
  readonly blobSizeBytes: number;
  readonly entries: number;
  /** SHA-256 (hex) and size of the span file. */
  readonly spanSha256: string;
  readonly spanSizeBytes: number;
  /** The table of contents that the layer brings (`chunk-table.ts`), when the index was made from that. */
  readonly tocDigest?: string | undefined;
  /**
   * Host of the registry, with `tocDigest` only: nobody compared all of the layer's bytes with its digest, so what one
   * registry gives of it is not shown to those who name another.
   */
  readonly registry?: string | undefined;
}

/**
 * The index of an image: what a worker needs to mount it, beside the EROFS image and the span files that it names.
 * Stored as canonical JSON; the SHA-256 of those bytes stands in the image's row and on the container request.
 */
export interface ImageIndex {
  readonly version: 1;
  /** Canonical `registry/repository` that the layers come from. */
  readonly repository: string;
  readonly manifestDigest: string;
  readonly configDigest: string;
  readonly platform: string;
  /** The OCI image config's bytes as text: the runtime reads entrypoint, environment and user from it. */
  readonly imageConfig: string;
  readonly erofsSha256: string;
  readonly erofsSizeBytes: number;
  /** Inodes of the merged tree. */
  readonly inodes: number;
  readonly layers: readonly IndexedLayer[];
}
