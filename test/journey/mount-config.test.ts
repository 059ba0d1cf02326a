import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { startProxy, type TestProxy } from "../../src/registry/proxy.test-kit.ts";
import { busyboxImage } from "../kit/busybox-image.ts";
import { type CliResult, runCli } from "../kit/node.ts";
import { product } from "../kit/product.ts";
import { push } from "../kit/push.ts";
import { TestRegistry } from "../kit/registry.ts";
import { credentialVariables, inScratch, withCredentials } from "../kit/world.ts";

let registry: TestRegistry;
let proxy: TestProxy;
beforeAll(async () => {
  registry = await TestRegistry.start({ auth: "htpasswd" });
  await push(await busyboxImage(), registry, "team/app:1");
  proxy = await startProxy(new Map([["registry.example", Number(registry.host.split(":")[1])]]));
});
afterAll(async () => {
  await registry.stop();
  await proxy.stop();
});

describe("without a server, a configuration file", () => {
  /** Runs `mount` of an image that only the file and the variables lead to, and gives what it reads there. */
  async function mounted(
    config: string,
    env: Record<string, string> = {},
  ): Promise<CliResult & { text: string }> {
    return await inScratch(async (dir) => {
      const [target, file] = [join(dir, "tree"), join(dir, "oci-node.toml")];
      await mkdir(target);
      await writeFile(file, config, { mode: 0o600 });
      const cli = async (...args: string[]): Promise<CliResult> =>
        runCli(await product(), args, {
          env: { ...credentialVariables(registry), HOME: dir, XDG_CACHE_HOME: dir, ...env },
          timeoutMs: 100_000,
        });
      const flags = [...withCredentials, "--config", file];
      const result = await cli("mount", "--index-only", "registry.example/team/app:1", target, ...flags);
      if (result.code !== 0) return { ...result, text: "" };
      const text = await readFile(join(target, "bin/busybox"), "latin1");
      expect((await cli("umount", target)).code).toBe(0);
      return { ...result, text };
    });
  }

  test("says where a registry really is", async () => {
    const { stderr, text } = await mounted(
      `[registry.hosts."registry.example"]\nconnect = "http://${registry.host}"\n`,
    );
    expect(stderr).not.toContain("oci-node: ");
    expect(text.slice(1, 4)).toBe("ELF");
  });

  test("and the caller's proxy are known to the process that serves the mount", async () => {
    const { stderr, text } = await mounted('[registry.hosts."registry.example"]\ninsecure = true\n', {
      HTTP_PROXY: proxy.url.href,
    });
    expect(stderr).not.toContain("oci-node: ");
    expect(text.slice(1, 4)).toBe("ELF");
    expect(proxy.requests.some(({ line }) => line.includes("/blobs/"))).toBe(true);
  });

  test("that is wrong is refused by the field", async () => {
    const { code, stderr } = await mounted('[registry.hosts."https://registry.example"]\ninsecure = true\n');
    expect(code).toBe(1);
    expect(stderr).toContain("registry.hosts");
  });
});
