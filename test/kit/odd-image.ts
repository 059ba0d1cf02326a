import { cachedFolder } from "./cache.ts";
import { type LayerCompression, type LocalImage, layerOf, readLayout, writeLayout } from "./oci-layout.ts";
import { type TarEntry, tarOf } from "./tar.ts";

/** Bytes that neither compress nor repeat, the same at each call. */
export function noise(sizeBytes: number, seed = 1): Uint8Array {
  const words = new Uint32Array(Math.ceil(sizeBytes / 4));
  let state = seed * 2654435761 + 1;
  for (let index = 0; index < words.length; index++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[index] = state;
  }
  return new Uint8Array(words.buffer, 0, sizeBytes);
}

const capNetRaw = new Uint8Array([1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);

/** Everything that a layer may hold and that a careless file system loses, in three layers. */
export function oddLayers(): TarEntry[][] {
  const dir = (path: string): TarEntry => ({ path, type: "dir" });
  const bottom: TarEntry[] = [
    dir("./"),
    dir("plain/"),
    { path: "plain/empty" },
    { path: "plain/one", data: "1" },
    { path: "plain/block", data: noise(4096, 2) },
    { path: "plain/big", data: noise(5 * 1024 * 1024 + 123, 3) },
    { path: "plain/zeros", data: new Uint8Array(3 * 1024 * 1024) },
    { path: `long/${"a".repeat(90)}/${"b".repeat(120)}/${"c".repeat(255)}`, data: "long path\n" },
    { path: "text/größe-日本語", data: "UTF-8 name\n" },
    { path: Buffer.from("text/latin1-\xe9\xff", "latin1"), data: "a name that is not UTF-8\n" },
    { path: "text/new\nline and space ", data: "control characters\n" },
    dir("links/"),
    { path: "links/first", data: "one inode, three names\n", mode: 0o640, uid: 12, gid: 34 },
    { path: "links/second", type: "hardlink", link: "links/first" },
    { path: "plain/third", type: "hardlink", link: "./links/first" },
    { path: "links/absolute", type: "symlink", link: "/plain/one" },
    { path: "links/dangling", type: "symlink", link: "../nowhere/at all" },
    { path: "links/far", type: "symlink", link: `${"x/".repeat(300)}end` },
    { path: "special/null", type: "char", device: [1, 3], mode: 0o666 },
    { path: "special/disk", type: "block", device: [259, 4464], mode: 0o660 },
    { path: "special/pipe", type: "fifo", mode: 0o600 },
    { path: "bits/setuid", data: "#!/bin/sh\n", mode: 0o4755 },
    { path: "bits/setgid", data: "#!/bin/sh\n", mode: 0o2755 },
    { path: "bits/sticky", type: "dir", mode: 0o1777 },
    { path: "bits/none", data: "unreadable\n", mode: 0 },
    { path: "owner/large", data: "large ids\n", uid: 3_000_000_000, gid: 2_999_999_999 },
    { path: "time/nanos", data: "t", mtime: "1700000000.123456789" },
    { path: "time/1960", data: "t", mtime: "-315619200" },
    { path: "time/before-epoch", data: "t", mtime: "-1.5" },
    { path: "time/2100", data: "t", mtime: "4102444800.000000001" },
    {
      path: "xattr/user",
      data: "x",
      xattrs: { "user.colour": "blue", "user.binary": noise(300, 4) },
    },
    { path: "xattr/capability", data: "x", mode: 0o755, xattrs: { "security.capability": capNetRaw } },
    { path: "xattr/dir", type: "dir", xattrs: { "user.on": "a folder" } },
    { path: "xattr/trusted", data: "x", xattrs: { "trusted.note": "kept" } },
    {
      path: "sparse/holes",
      sparse: {
        sizeBytes: 20 * 1024 * 1024 + 77,
        pieces: [
          { offset: 1024 * 1024, data: noise(10_240, 5) },
          { offset: 16 * 1024 * 1024, data: noise(512, 6) },
        ],
      },
    },
    { path: "gone/file", data: "removed above\n" },
    { path: "gone/dir/deep/file", data: "removed above\n" },
    { path: "opaque/lower", data: "hidden above\n" },
    { path: "opaque/sub/lower", data: "hidden above\n" },
    { path: "swap/dir-to-file/inside", data: "hidden above\n" },
    { path: "swap/file-to-dir", data: "replaced above\n" },
    { path: "swap/link-to-dir", type: "symlink", link: "../plain" },
    { path: "changed/mode", data: "same bytes\n", mode: 0o644 },
    { path: "many/", type: "dir" },
    ...Array.from(
      { length: 700 },
      (_, index): TarEntry => ({ path: `many/file-${index}`, data: `${index}\n`.repeat(index % 7) }),
    ),
  ];
  const middle: TarEntry[] = [
    { path: "gone/.wh.file" },
    { path: "gone/dir/.wh.deep" },
    dir("opaque/"),
    { path: "opaque/.wh..wh..opq" },
    { path: "opaque/upper", data: "the only one\n" },
    { path: "swap/dir-to-file", data: "now a file\n" },
    dir("swap/file-to-dir/"),
    { path: "swap/file-to-dir/inside", data: "now a folder\n" },
    { path: "swap/.wh.link-to-dir" },
    { path: "changed/mode", data: "same bytes\n", mode: 0o4711, uid: 7 },
    { path: "second", data: noise(3 * 1024 * 1024, 7) },
    { path: "many/.wh.file-13" },
  ];
  const top: TarEntry[] = [
    { path: "gone/file", data: "back again\n" },
    { path: "./links/fourth", type: "hardlink", link: "links/fifth-target" },
    { path: "third", data: "third layer\n" },
  ];
  return [
    bottom,
    middle,
    [{ path: "links/fifth-target", data: "linked within the third layer\n" } as TarEntry, ...top],
  ];
}

/** An image of {@link oddLayers}; it does not run. `compression` per layer, the last one for the rest. */
export async function oddImage(compression: readonly LayerCompression[] = ["gzip"]): Promise<LocalImage> {
  const dir = await cachedFolder(
    "odd",
    { version: 5, compression, layers: oddLayers().map((entries) => hashOf(entries)) },
    async (beside) => {
      const layers = oddLayers().map((entries, index) =>
        layerOf(tarOf(entries), compression[Math.min(index, compression.length - 1)]),
      );
      await writeLayout(beside, layers, { Cmd: ["/bin/true"] });
    },
  );
  return readLayout(dir);
}

function hashOf(entries: readonly TarEntry[]): string {
  return Bun.hash(tarOf(entries)).toString();
}

/**
 * Folders that no entry of the layers names, only files in them: whoever extracts gives them the time of that moment. And
 * the root, whose time an extraction changes by putting things into it.
 */
export function foldersOfAnyTime(): ReadonlySet<string> {
  const paths = oddLayers().flatMap((entries) =>
    entries.map(({ path }) =>
      Buffer.from(path)
        .toString("latin1")
        .replace(/^\.\/|\/$/g, ""),
    ),
  );
  const parents = paths.flatMap((path) =>
    path.split("/").map((_, depth, parts) => parts.slice(0, depth).join("/")),
  );
  return new Set(parents.filter((parent) => parent === "" || !paths.includes(parent)));
}
