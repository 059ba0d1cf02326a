import { join } from "node:path";
import { run } from "../../src/std/spawn.ts";
import type { LocalImage } from "./oci-layout.ts";

/** Extracts an image with umoci, our oracle for what its tree must be, and gives the tree's root. */
export async function unpack(image: LocalImage, bundle: string): Promise<string> {
  await run(["umoci", "--log=error", "unpack", "--keep-dirlinks", "--image", `${image.dir}:latest`, bundle], {
    timeoutMs: 300_000,
  });
  return join(bundle, "rootfs");
}
