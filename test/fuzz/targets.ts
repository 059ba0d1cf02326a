import { chunkTarget } from "./chunk-target.ts";
import { codeTarget } from "./code-target.ts";
import { credentialTarget } from "./credential-target.ts";
import { erofsTarget } from "./erofs-target.ts";
import { imageJsonTarget, registryTarget, traceTarget } from "./json-target.ts";
import { layerTarget } from "./layer-target.ts";
import { rootTarget } from "./root-target.ts";
import { spanTarget } from "./span-target.ts";
import { gnuTarTarget, tarTarget } from "./tar-target.ts";
import type { Target } from "./target.ts";
import { tocTarget } from "./toc-target.ts";

/** What is fuzzed in TypeScript; the C files have a harness of their own. */
export const targets: readonly Target[] = [
  tarTarget,
  gnuTarTarget,
  layerTarget,
  chunkTarget,
  tocTarget,
  spanTarget,
  imageJsonTarget,
  traceTarget,
  erofsTarget,
  registryTarget,
  rootTarget,
  credentialTarget,
  codeTarget,
];
