import { expect, test } from "bun:test";
import { chmod, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { busyboxImage } from "../kit/busybox-image.ts";
import { runCli } from "../kit/node.ts";
import { product } from "../kit/product.ts";
import { push } from "../kit/push.ts";
import { TestRegistry } from "../kit/registry.ts";
import { inScratch } from "../kit/world.ts";

const robot = (password: string) => ({ username: "robot", password });

test("a mount asks Docker's credential helper again when the registry does not take its first answer any more", async () => {
  await using registry = await TestRegistry.start({ auth: "htpasswd", accounts: [robot("first")] });
  const reference = await push(await busyboxImage(), registry, "team/app:1");
  await inScratch(async (dir) => {
    const [target, password, asked] = [join(dir, "tree"), join(dir, "password"), join(dir, "asked")];
    await mkdir(target);
    await mkdir(join(dir, ".docker"));
    await mkdir(join(dir, "bin"));
    await writeFile(join(dir, ".docker/config.json"), JSON.stringify({ credsStore: "test" }));
    await writeFile(password, "first");
    const helper = join(dir, "bin/docker-credential-test");
    const answer = `{"Username":"robot","Secret":"'$(cat ${password})'"}`;
    await writeFile(helper, `#!/bin/sh\necho "$1 $(cat)" >> ${asked}\necho '${answer}'\n`);
    await chmod(helper, 0o755);
    const cli = async (...args: string[]) =>
      runCli(await product(), args, {
        env: { HOME: dir, XDG_CACHE_HOME: dir, PATH: `${join(dir, "bin")}:/usr/bin:/bin:/usr/sbin:/sbin` },
      });
    const flags = ["--index-only", "--creds-from", "docker", "--insecure-registry", registry.host];
    const mounted = await cli("mount", reference, target, ...flags);
    expect([mounted.code, mounted.stderr]).toEqual([0, expect.not.stringContaining("oci-node: ")]);
    expect(await readFile(join(target, "etc/passwd"), "utf8")).toContain("root:x:0:0");
    await writeFile(password, "second");
    await registry.setAccounts([robot("second")]);
    expect(await readFile(join(target, "etc/motd"), "utf8")).toBe("hello from the image\n");
    expect((await readFile(asked, "utf8")).trim().split("\n")).toEqual(Array(2).fill(`get ${registry.host}`));
    expect((await cli("umount", target)).code).toBe(0);
  });
});
