import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { run } from "../../src/std/spawn.ts";
import { cachedFolder } from "./cache.ts";
import { DebianLayers, debianPlan } from "./debian-layers.ts";
import { type LocalImage, readLayout, writeLayout } from "./oci-layout.ts";

/** With setuid programs, links of all kinds, and the several thousand small files of a base system. */
const groups = [
  ["base-files", "libc-bin", "dash", "login", "passwd", "mount"],
  ["perl-base", "tzdata", "adduser"],
] as const;

/** Changes to the layers below, as the step of a Dockerfile makes them: the directories of what changes are described. */
async function changes(root: string): Promise<void> {
  await mkdir(join(root, "etc/skel"), { recursive: true });
  await mkdir(join(root, "usr/share"), { recursive: true });
  await writeFile(join(root, "etc/.wh.passwd"), "");
  await writeFile(join(root, "etc/skel/.wh..wh..opq"), "");
  await writeFile(join(root, "etc/skel/.profile"), "# the only one\n");
  await writeFile(join(root, "usr/share/.wh.doc"), "");
  await run(["chmod", "-R", "u=rwX,go=rX", root]);
}

/** A small image of Debian or Ubuntu packages, which does not run: three gzip layers. Kept in `.cache`. */
export async function debianImage(): Promise<LocalImage> {
  const plan = await debianPlan("debian", groups);
  const dir = await cachedFolder("debian", { version: 1, plan }, (beside) =>
    DebianLayers.inScratch(async (scratch) => {
      const layers = await scratch.packages(groups, plan);
      layers.push(await scratch.add(changes));
      await writeLayout(beside, layers, {});
    }),
  );
  return readLayout(dir);
}
