import { copyFile, mkdir, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { run } from "../std/spawn.ts";
import { defaultIndexLimits } from "./limits.ts";
import { TarReader } from "./tar-reader.ts";

/** What is run inside of the tree that is being made, where nothing else of this machine can be reached. */
const tools = ["sh", "tar", "rm", "find"];
const box = ".oracle-tools";

/**
 * Applies one layer to the tree of those below it, as container engines do: the layers below are mounted by overlayfs with
 * the layer's own, empty directory above, and the archive is unpacked there by GNU tar, in a chroot since links of the
 * tree lead its paths.
 */
const applyLayer = `
set -e
mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=$UPPER,workdir=$WORK" "$MERGED"
mkdir "$MERGED/${box}"
mount --bind "$TOOLS" "$MERGED/${box}"
mount -o remount,bind,ro "$MERGED/${box}"
chroot "$MERGED" /${box}/ld.so --library-path /${box} /${box}/sh -e "/${box}/$STEPS/script"
touch -r "$MERGED" "$STAMP"
umount "$MERGED/${box}"
rmdir "$MERGED/${box}"
touch -r "$STAMP" "$MERGED"
`;

/** What the script of a layer begins with. */
const scriptHead = `
run() { tool=$1; shift; /${box}/ld.so --library-path /${box} "/${box}/$tool" "$@"; }
remove() { run rm -rf -- "$1"; }
empty() { if [ -d "$1" ]; then run find "$1/" -mindepth 1 -maxdepth 1 ! -name ${box} -exec ${`/${box}/ld.so --library-path /${box} /${box}/rm`} -rf -- {} +; fi; }
make_room() { if [ -d "$1" ] && [ ! -L "$1" ]; then remove "$1"; fi; }
unpack() { run tar -xp -P --same-owner --numeric-owner --xattrs --xattrs-include='*' --warning=no-timestamp \\
  --warning=no-unknown-keyword --exclude='.wh.*' -f "/${box}/$1"; }
`;

/** Layers unpacked, each into a directory of its own, and shown by overlayfs: what an image's tree must be. */
export class OverlayOracle {
  readonly #folder: string;
  readonly #mounted: string[] = [];
  /** Paths that were a directory's, and their last parts: what else has such a name may have to take a directory's place. */
  readonly #directoryNames = new Set<string>();
  readonly #byName: boolean;

  /**
   * @param folder made for the oracle alone, on a file system that overlayfs can write to
   * @param aliases whether one directory may be named by several paths, through links. Archives are then unpacked in more
   *   parts, and each changes the times of the directories of those before.
   */
  constructor(folder: string, aliases = false) {
    this.#folder = folder;
    this.#byName = aliases;
  }

  /** Unpacks the layers, archives without compression, the lowest first: the path of the mounted root. */
  async unpack(layers: readonly Uint8Array[]): Promise<string> {
    await this.#copyTools();
    const lower = [await this.#directory("empty")];
    for (const [at, layer] of layers.entries()) lower.unshift(await this.#apply(layer, at, lower));
    const root = await this.#directory("root");
    await run(["mount", "-t", "overlay", "overlay", "-o", `ro,lowerdir=${lower.join(":")}`, root]);
    this.#mounted.push(root);
    return root;
  }

  /** Unmounts; the folder is left to whoever made it. */
  async close(): Promise<void> {
    for (const root of this.#mounted.splice(0)) await run(["umount", root]);
  }

  async #apply(layer: Uint8Array, at: number, lower: readonly string[]): Promise<string> {
    const upper = await this.#directory(`layer-${at}`);
    // As engines do: the new layer's root begins as the one below.
    const [below = ""] = lower;
    await run(["chmod", `--reference=${below}`, upper]);
    await run(["chown", `--reference=${below}`, upper]);
    await run(["touch", "-r", below, upper]);
    const tools = join(this.#folder, "tools");
    await mkdir(join(tools, `${at}`));
    const script = await this.#script(layer, `${at}`);
    await writeFile(join(tools, `${at}`, "script"), Buffer.from(`${scriptHead}${script}`, "latin1"));
    await run(["unshare", "--mount", "sh", "-c", applyLayer], {
      timeoutMs: 300_000,
      env: {
        LOWER: lower.join(":"),
        MERGED: await this.#directory(`merged-${at}`),
        STAMP: join(tools, `${at}`, "script"),
        STEPS: `${at}`,
        TOOLS: tools,
        UPPER: upper,
        WORK: await this.#directory(`work-${at}`),
      },
    });
    return upper;
  }

  /**
   * First what the layer's markers name is removed, so that they hide lower layers only. Then the archive is unpacked, in
   * parts: tar does not put a file in the place of a directory that is not empty, so that such a one is removed before.
   */
  async #script(tar: Uint8Array, name: string): Promise<string> {
    const markers: string[] = [];
    const cuts: { readonly at: number; readonly path: string }[] = [];
    let end = 0;
    const reader = new TarReader(defaultIndexLimits, (member) => {
      const path = member.name.replace(/^(\.?\/)+|\/+$/g, "");
      const parts = path.split("/");
      const base = parts.at(-1) ?? "";
      if (base === ".wh..wh..opq") markers.push(`empty ${quoted(path.slice(0, -base.length))}`);
      else if (base.startsWith(".wh."))
        markers.push(`remove ${quoted(path.slice(0, -base.length) + base.slice(4))}`);
      else {
        const known = this.#byName ? base : path;
        if (member.type !== "5" && this.#directoryNames.has(known)) cuts.push({ at: end, path });
        const folders = member.type === "5" ? parts : parts.slice(0, -1);
        for (const [at, part] of folders.entries())
          this.#directoryNames.add(this.#byName ? part : folders.slice(0, at + 1).join("/"));
      }
      end = member.dataOffset + Math.ceil(member.dataBytes / 512) * 512;
    });
    reader.push(tar);
    const steps: string[] = [];
    const unpack = async (from: number, to: number) => {
      const file = `${name}/${steps.length}.tar`;
      if (from < to)
        await writeFile(
          join(this.#folder, "tools", file),
          Buffer.concat([tar.subarray(from, to), Buffer.alloc(1024)]),
        );
      if (from < to) steps.push(`unpack ${file}`);
    };
    let from = 0;
    for (const cut of cuts) {
      await unpack(from, cut.at);
      steps.push(`make_room ${quoted(cut.path)}`);
      from = cut.at;
    }
    await unpack(from, tar.length);
    return `${[...markers, ...steps].join("\n")}\n`;
  }

  async #directory(name: string): Promise<string> {
    const path = join(this.#folder, name);
    await mkdir(path);
    return path;
  }

  /** The tools with their libraries, which find each other in a folder by the loader's options. */
  async #copyTools(): Promise<void> {
    const folder = await this.#directory("tools");
    for (const tool of tools) {
      const path = (await run(["sh", "-c", `command -v ${tool}`])).stdout.trim();
      await copyFile(path, join(folder, tool));
      const { stdout } = await run(["ldd", path]);
      for (const [, library = ""] of stdout.matchAll(/=> (\/\S+)/g))
        await copyFile(library, join(folder, basename(library)));
      const loader = /^\s*(\/\S+) \(/m.exec(stdout)?.[1] ?? "";
      await copyFile(loader, join(folder, "ld.so"));
    }
  }
}

/** A name in a shell's script. */
function quoted(path: string): string {
  return `'./${path.replaceAll("'", "'\\''")}'`;
}
