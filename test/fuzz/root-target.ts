import { lstatSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { defaultOptions } from "../../src/container/options.ts";
import type { SeededRandom } from "../../src/index/tar.test-kit.ts";
import { imageConfigSchema } from "../../src/registry/image-config.ts";
import { RuntimeError } from "../../src/runtime/error.ts";
import { makeDirectoryInRoot, readFileInRoot } from "../../src/runtime/files/inside-root.ts";
import { resolveUser } from "../../src/runtime/files/user.ts";
import { containerArgv, containerEnv, workingDirectory } from "../../src/runtime/process-section.ts";
import type { ContainerSpec } from "../../src/runtime/spec.ts";
import { promise, refused, type Target } from "./target.ts";

interface Tree {
  /** Path in the image, and where a symbolic link there leads; no target: a folder, `""`: a file. */
  readonly entries: readonly (readonly [path: string, target: string | undefined])[];
  readonly user: string;
  readonly paths: readonly string[];
  readonly config: unknown;
}

const parts = ["a", "b", "etc", "passwd", "..", ".", "", "x".repeat(300), "n\0l"];
const secret = "root:x:0:0::/outside:/bin/sh\n";

/**
 * An image's tree and settings that try to leave the image: what we read for it comes from inside of its root, and what we
 * make as root for it, its working folder and volumes, stays there.
 */
export const rootTarget: Target = {
  name: "image-root",
  make(random) {
    const entries = Array.from({ length: 1 + random.next(8) }, () => {
      const kind = random.next(3);
      const target = kind === 0 ? undefined : kind === 1 ? "" : randomPath(random, 6);
      return [randomPath(random, 3), target] as const;
    });
    const texts = (): string[] => Array.from({ length: random.next(3) }, () => randomPath(random, 4));
    const tree: Tree = {
      entries:
        random.next(2) === 0
          ? entries
          : [...entries, ["etc", undefined], ["etc/passwd", randomPath(random, 6)]],
      user: random.pick(["", "0", "root", "a:b", "4294967295", "99999999999", ":", "root:4294967294", "\0"]),
      paths: [randomPath(random, 12), randomPath(random, 4)],
      config: {
        config: {
          Env: texts(),
          Cmd: texts(),
          Entrypoint: texts(),
          WorkingDir: randomPath(random, 5),
          Volumes: { [randomPath(random, 3)]: {} },
        },
      },
    };
    return Buffer.from(JSON.stringify(tree));
  },
  async run(input, random, folder) {
    const tree = JSON.parse(Buffer.from(input).toString("utf8")) as Tree;
    const home = join(folder, `root-${random.next(2 ** 31)}`);
    const root = join(home, "image/root");
    mkdirSync(root, { recursive: true });
    mkdirSync(join(home, "etc"));
    writeFileSync(join(home, "etc/passwd"), secret);
    for (const [path, target] of tree.entries) put(root, path, target);
    const outside = listing(home, root);

    const parsed = imageConfigSchema.safeParse(tree.config);
    promise(parsed.success, () => "its settings are no settings");
    const spec = {
      id: "c",
      attempt: 1,
      workspaceId: "w",
      imageRoot: root,
      imageConfig: parsed.data,
      env: {},
      network: "none",
      options: defaultOptions,
    } satisfies ContainerSpec;
    await refused(RuntimeError, () => containerArgv(parsed.data, undefined));
    const user = { uid: 1, gid: 1, additionalGids: [], home: "/" };
    promise(
      containerEnv(spec, user, "c").every((entry) => entry.indexOf("=") > 0 && !entry.includes("\0")),
      () => "a variable is none",
    );
    const found = await refused(RuntimeError, async () => {
      const { home: theirs } = await resolveUser(root, tree.user);
      promise(theirs !== "/outside", () => "the user comes from outside of the root");
    });
    promise(
      found === undefined || ["bad_user", "bad_config"].includes(found.code),
      () => `refused by ${found?.code}`,
    );
    const made = [...tree.paths, ...parsed.data.config.Volumes, parsed.data.config.WorkingDir];
    for (const path of made)
      await refused(RuntimeError, () => makeDirectoryInRoot(root, path, { uid: 0, gid: 0 }));
    await refused(RuntimeError, () => void workingDirectory(parsed.data));
    for (const path of tree.paths)
      await refused(RuntimeError, async () => {
        promise(
          (await readFileInRoot(root, path, 4096)) !== secret,
          () => `${path} is read outside of the root`,
        );
      });
    promise(Bun.deepEquals(listing(home, root), outside), () => "something was made outside of the root");
    rmSync(home, { recursive: true });
  },
};

function randomPath(random: SeededRandom, most: number): string {
  const path = Array.from({ length: 1 + random.next(most) }, () =>
    random.pick(random.next(12) === 0 ? parts : parts.slice(0, 6)),
  ).join("/");
  return random.next(3) === 0 ? `/${path}` : path;
}

/** Makes an entry of the image where its path leads without links; what cannot be is left out. */
function put(root: string, path: string, target: string | undefined): void {
  const inside = join(root, join("/", path.replaceAll("\0", "")));
  if (inside === root || inside === `${root}/` || !isPlain(root, dirname(inside))) return;
  try {
    mkdirSync(dirname(inside), { recursive: true });
    if (target === undefined) mkdirSync(inside);
    else if (target === "") writeFileSync(inside, "root:x:0:0::/inside:/bin/sh\n", { flag: "wx" });
    else symlinkSync(target.replaceAll("\0", ""), inside);
  } catch {
    // Too long, or there is something already.
  }
}

/** Whether no part between the root and the folder is anything but a folder. */
function isPlain(root: string, folder: string): boolean {
  for (let at = folder; at.length > root.length; at = dirname(at)) {
    try {
      if (!lstatSync(at).isDirectory()) return false;
    } catch {
      // Not there yet.
    }
  }
  return true;
}

/** Everything below `home` that is not below `root`. */
function listing(home: string, root: string): string[] {
  const found: string[] = [];
  const todo = [home];
  for (let at = todo.pop(); at !== undefined; at = todo.pop()) {
    if (at === root) continue;
    for (const name of readdirSync(at)) {
      const path = join(at, name);
      found.push(path);
      if (lstatSync(path).isDirectory()) todo.push(path);
    }
  }
  return found.sort();
}
