import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { run } from "../../src/std/spawn.ts";
import type { LocalImage } from "./oci-layout.ts";
import type { Account, TestRegistry } from "./registry.ts";

/**
 * Pushes an image with skopeo, unchanged to the byte (layers are not compressed anew), and gives its reference:
 * `HOST:PORT/NAME`, where the name may end in a tag. With `docker` the manifest becomes one of Docker's (version 2, schema 2).
 */
export async function push(
  image: LocalImage,
  registry: TestRegistry,
  name: string,
  account?: Account,
  docker = false,
): Promise<string> {
  const reference = `${registry.host}/${name}`;
  const withAuth = account ?? registry.accounts[0];
  await withAuthFile(registry.host, withAuth, (authFile) =>
    run(
      [
        "skopeo",
        "copy",
        "--quiet",
        ...(docker ? ["--format", "v2s2"] : ["--preserve-digests"]),
        "--insecure-policy",
        "--dest-tls-verify=false",
        "--dest-authfile",
        authFile,
        `oci:${image.dir}:latest`,
        `docker://${reference}`,
      ],
      { timeoutMs: 300_000 },
    ),
  );
  return reference;
}

/** Calls `action` with a file in the form of Docker's `config.json` that holds this one credential; removes it after. */
export async function withAuthFile<T>(
  host: string,
  account: Account | undefined,
  action: (path: string) => Promise<T>,
): Promise<T> {
  const dir = await mkdtemp(join(tmpdir(), "oci-node-auth-"));
  try {
    const path = join(dir, "auth.json");
    const auth =
      account === undefined
        ? undefined
        : Buffer.from(`${account.username}:${account.password}`).toString("base64");
    await writeFile(path, JSON.stringify({ auths: auth === undefined ? {} : { [host]: { auth } } }), {
      mode: 0o600,
    });
    return await action(path);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}
