import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { run } from "../../src/std/spawn.ts";
import { cachedFolder } from "./cache.ts";
import { type LocalImage, layerOf, readLayout, writeLayout } from "./oci-layout.ts";
import { tarOf } from "./tar.ts";

/** A static program that serves HTTP (http-server.c says what) and nothing else: no shell, no libraries, less than 1 MB. */
export async function httpImage(): Promise<LocalImage> {
  const source = join(import.meta.dir, "http-server.c");
  const inputs = { version: 1, source: await Bun.file(source).text() };
  const dir = await cachedFolder("http-server", inputs, async (beside) => {
    const program = join(beside, "server");
    await run(["gcc", "-O2", "-Wall", "-static", "-pthread", "-o", program, source], { timeoutMs: 60_000 });
    const layer = layerOf(tarOf([{ path: "server", data: await readFile(program), mode: 0o755 }]), "gzip");
    await writeLayout(beside, [layer], { Entrypoint: ["/server"] });
  });
  return readLayout(dir);
}
