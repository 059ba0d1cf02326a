import { readFile } from "node:fs/promises";
import { cachedFolder } from "./cache.ts";
import {
  type ImageSettings,
  type LayerCompression,
  type LocalImage,
  layerOf,
  readLayout,
  writeLayout,
} from "./oci-layout.ts";
import { type TarEntry, tarOf } from "./tar.ts";

const applets = [
  "sh",
  "cat",
  "echo",
  "env",
  "find",
  "grep",
  "sort",
  "tr",
  "false",
  "hostname",
  "id",
  "kill",
  "ls",
  "mkdir",
  "ps",
  "pwd",
  "sleep",
  "sync",
  "true",
  "wc",
  "dd",
  "head",
  "md5sum",
  "sha256sum",
  "rm",
  "touch",
  "trap",
  "test",
  "seq",
  "yes",
  "ip",
  "wget",
  "stat",
  "date",
  "stty",
];

const settings: ImageSettings = {
  Env: ["PATH=/usr/local/bin:/bin", "FROM_IMAGE=yes"],
  Cmd: ["sh", "-c", "cat /etc/motd"],
  WorkingDir: "/work",
  Labels: { "org.opencontainers.image.title": "busybox for tests" },
};

/** A shell in three layers and about 1 MB; the smallest image that runs. `extra` entries make a fourth layer. */
export async function busyboxImage(
  options: { compression?: LayerCompression; extra?: readonly TarEntry[]; settings?: ImageSettings } = {},
): Promise<LocalImage> {
  const binary = await readFile("/bin/busybox");
  const extra = options.extra === undefined ? "" : Bun.hash(tarOf(options.extra)).toString();
  const inputs = { ...options, extra, version: 4, binary: Bun.hash(binary).toString() };
  const dir = await cachedFolder("busybox", inputs, async (beside) => {
    const compression = options.compression ?? "gzip";
    const layers = busyboxLayers(binary).concat(options.extra === undefined ? [] : [[...options.extra]]);
    const made = layers.map((entries) => layerOf(tarOf(entries), compression));
    await writeLayout(beside, made, { ...settings, ...options.settings });
  });
  return readLayout(dir);
}

function busyboxLayers(binary: Uint8Array): TarEntry[][] {
  const dir = (path: string, mode = 0o755): TarEntry => ({ path, type: "dir", mode });
  return [
    [
      ...["bin", "etc", "proc", "sys", "dev", "root", "usr", "usr/local", "usr/local/bin"].map((path) =>
        dir(path),
      ),
      dir("tmp", 0o1777),
      { path: "bin/busybox", data: binary, mode: 0o755 },
      ...applets.map((name): TarEntry => ({ path: `bin/${name}`, type: "symlink", link: "busybox" })),
    ],
    [
      { path: "etc/passwd", data: "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/work:/bin/sh\n" },
      { path: "etc/group", data: "root:x:0:\napp:x:1000:\n" },
      { path: "etc/motd", data: "to be replaced\n" },
      { path: "etc/removed", data: "must not be seen\n" },
    ],
    [
      { path: "work", type: "dir", uid: 1000, gid: 1000 },
      { path: "etc/motd", data: "hello from the image\n" },
      { path: "etc/.wh.removed" },
      {
        path: "usr/local/bin/exit-with",
        data: '#!/bin/sh\necho "leaving with $1"\nexit "$1"\n',
        mode: 0o755,
      },
    ],
  ];
}
