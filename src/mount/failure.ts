import { MountError } from "./error.ts";

const registryNext = "Check the registry's storage and any proxy before it; the read can be tried again.";

/** The registry sent bytes for a span that are not the indexed ones, twice. */
export function wrongBytes(layer: string, span: number): MountError {
  return new MountError("corrupt_blob", `the registry sent wrong bytes for span ${span} of layer ${layer}`, {
    layer,
    next: registryNext,
  });
}

/** The right bytes do not inflate with what the index says about them. */
export function notInflatable(layer: string, span: number): MountError {
  return new MountError("corrupt_index", `span ${span} of layer ${layer} cannot be inflated`, {
    layer,
    next: "Build the image again, so that it is indexed anew.",
  });
}

/** The layer went by as a whole, twice, without the right bytes for a span. */
export function notInStream(layer: string, span: number): MountError {
  return new MountError("corrupt_blob", `span ${span} of layer ${layer} did not come out of its stream`, {
    layer,
    next: registryNext,
  });
}

/** What readers and waiting requests of a released mount get. */
export function released(root: string): MountError {
  return new MountError("cancelled", `the mount ${root} was released`);
}

/** The cache's disk is full. Readers are served all the same, as long as their bytes fit into memory. */
export function noSpaceFor(layer: string): MountError {
  return new MountError("no_space", `no space to keep layer ${layer} in the cache`, {
    layer,
    next: "Free space on the disk that holds the cache, raise its quota, or give it another directory.",
  });
}
