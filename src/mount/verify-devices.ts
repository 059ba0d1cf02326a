import { type FileHandle, open } from "node:fs/promises";
import { erofs } from "../index/erofs-format.ts";
import type { OpenedImageIndex } from "../index/store.ts";
import { blockBytes } from "../index/types.ts";
import { MountError } from "./error.ts";
import type { CachedLayer } from "./layer-cache.ts";

/**
 * Checks what the kernel does not: that the EROFS image names as many devices as there are layers, in the same order as
 * far as sizes tell, and that each blob is of the layer that the index names at its place. A wrong order would mount
 * and give wrong data.
 * @throws MountError `corrupt_index`
 */
export async function verifyDevices(image: OpenedImageIndex, layers: readonly CachedLayer[]): Promise<void> {
  const blocks = await deviceBlocks(image.erofsPath);
  const expected = image.index.layers;
  if (blocks.length !== expected.length || layers.length !== expected.length)
    throw unfit(image, `it has ${blocks.length} devices for ${expected.length} layers`);
  for (const [index, layer] of expected.entries()) {
    const { blob } = layers[index] as CachedLayer;
    if (blob.layerDigest !== layer.digest)
      throw unfit(image, `the span file of layer ${layer.digest} is of ${blob.layerDigest}`);
    if (blob.sizeBytes !== layer.blobSizeBytes || blocks[index] !== layer.blobSizeBytes / blockBytes)
      throw unfit(image, `the blob of layer ${layer.digest} is not ${layer.blobSizeBytes} bytes long`);
  }
}

/** The sizes of an EROFS image's devices, in blocks (`struct erofs_deviceslot` in Linux, `fs/erofs/erofs_fs.h`). */
async function deviceBlocks(path: string): Promise<number[]> {
  const file = await open(path, "r");
  try {
    const head = await readAt(file, erofs.superblockOffset, 128);
    if (head.readUInt32LE(0) !== erofs.magic) return [];
    const count = head.readUInt16LE(86);
    const table = await readAt(
      file,
      head.readUInt16LE(88) * erofs.deviceSlotBytes,
      count * erofs.deviceSlotBytes,
    );
    return Array.from({ length: count }, (_, index) =>
      table.readUInt32LE(index * erofs.deviceSlotBytes + 64),
    );
  } finally {
    await file.close();
  }
}

async function readAt(file: FileHandle, offset: number, length: number): Promise<Buffer> {
  const buffer = Buffer.alloc(length);
  if (length > 0) await file.read(buffer, 0, length, offset);
  return buffer;
}

function unfit(image: OpenedImageIndex, why: string): MountError {
  return new MountError(
    "corrupt_index",
    `the index of image ${image.index.manifestDigest} does not fit: ${why}`,
    {
      next: "Build the image again.",
    },
  );
}
