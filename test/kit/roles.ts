import { writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import type { TestRegistry } from "./registry.ts";

/** A configuration with which roles run in processes of their own and find each other. @param more lines of TOML */
export async function writeRolesConfig(
  dir: string,
  registry: TestRegistry,
  more: readonly string[] = [],
): Promise<string> {
  const path = join(dir, "config.toml");
  const scheduler = `127.0.0.1:${await freePort()}`;
  const lines = [
    `data_dir = "${join(dir, "data")}"`,
    'gateway.listen = "127.0.0.1:0"',
    `scheduler.listen = "${scheduler}"`,
    `worker.scheduler_url = "https://${scheduler}"`,
    `registry.insecure = ${JSON.stringify(registry.insecureHosts)}`,
    ...more,
  ];
  await writeFile(path, `${lines.join("\n")}\n`, { mode: 0o600 });
  return path;
}

/** A port that nobody listens on now. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}
