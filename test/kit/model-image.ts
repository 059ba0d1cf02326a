import { createCipheriv } from "node:crypto";
import { mkdir, open } from "node:fs/promises";
import { dirname, join } from "node:path";
import { cachedFolder } from "./cache.ts";
import { DebianLayers } from "./debian-layers.ts";
import { type LocalImage, readLayout, writeLayout } from "./oci-layout.ts";

/** `noise`: as quantized or encrypted weights, gzip stores it. `weights`: bf16 of trained layers, gzip takes a fifth off. */
export type ModelKind = "noise" | "weights";

/** Where the file is in the image. */
export const modelPath = "model/model.safetensors";

const block = 64 * 1024 * 1024;

/** An image of one gzip layer with one large file in it, a multiple of 64 MiB. Kept in `.cache`. */
export async function modelImage(
  kind: ModelKind,
  sizeBytes: number,
  log: (line: string) => void = () => {},
): Promise<LocalImage> {
  const dir = await cachedFolder(`model-${kind}`, { version: 1, kind, sizeBytes }, (beside) =>
    DebianLayers.inScratch(async (scratch) => {
      log(`making a model of ${sizeBytes / 2 ** 20} MiB, once`);
      const fill = async (root: string): Promise<void> => {
        await mkdir(join(root, dirname(modelPath)));
        await writeModel(join(root, modelPath), kind, sizeBytes);
      };
      const layer = await scratch.add(fill, { level: 1 });
      await writeLayout(beside, [layer], {});
    }),
  );
  return readLayout(dir);
}

async function writeModel(path: string, kind: ModelKind, sizeBytes: number): Promise<void> {
  const file = await open(path, "wx");
  try {
    const cipher = createCipheriv("aes-128-ctr", Buffer.alloc(16, 1), Buffer.alloc(16));
    const zeros = Buffer.alloc(block);
    // Farther apart than any window of gzip, so that the repetition does not compress.
    const weights = kind === "weights" ? bfloat16Weights(block) : undefined;
    for (let at = 0; at < sizeBytes; at += block) await file.writeFile(weights ?? cipher.update(zeros));
  } finally {
    await file.close();
  }
}

/** Normally distributed numbers as bf16, in tensors of 4 MiB with a deviation each; the same bytes every time. */
function bfloat16Weights(sizeBytes: number): Uint8Array {
  const count = sizeBytes / 2;
  const words = new Uint32Array(
    new Uint8Array(
      createCipheriv("aes-128-ctr", Buffer.alloc(16, 2), Buffer.alloc(16)).update(Buffer.alloc(count * 4)),
    ).buffer,
  );
  const floats = new Float32Array(count);
  for (let at = 0; at < count; at += 2) {
    const deviation = 0.01 * 1.5 ** (Math.floor(at / 2 ** 21) % 6);
    const radius = Math.sqrt(-2 * Math.log(((words[at] as number) + 1) / 2 ** 32));
    const angle = (2 * Math.PI * (words[at + 1] as number)) / 2 ** 32;
    floats[at] = deviation * radius * Math.cos(angle);
    floats[at + 1] = deviation * radius * Math.sin(angle);
  }
  const bits = new Uint32Array(floats.buffer);
  return new Uint8Array(Uint16Array.from(bits, (value) => value >>> 16).buffer);
}
