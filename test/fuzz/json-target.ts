import { IndexError } from "../../src/index/error.ts";
import { decodeImageIndex, encodeImageIndex, imageIndexSha256 } from "../../src/index/image-index-json.ts";
import type { SeededRandom } from "../../src/index/tar.test-kit.ts";
import { decodeTrace, encodeTrace, mergeTrace, traceLimits } from "../../src/index/trace.ts";
import { ImageReferenceError } from "../../src/reference/error.ts";
import { parsePlatform } from "../../src/reference/platform.ts";
import { formatReference, parseReference } from "../../src/reference/reference.ts";
import { parseChallenges } from "../../src/registry/challenge.ts";
import { mediaTypes } from "../../src/registry/descriptor.ts";
import { RegistryError } from "../../src/registry/error.ts";
import { imageConfigSchema } from "../../src/registry/image-config.ts";
import { parseManifest, pickPlatform } from "../../src/registry/manifest.ts";
import { parseRetryAfter } from "../../src/registry/retry.ts";
import { mutate } from "./mutate.ts";
import { promise, refused, type Target } from "./target.ts";

const hex = "0123456789abcdef".repeat(4);
const digest = `sha256:${hex}`;
const layer = { mediaType: "application/vnd.oci.image.layer.v1.tar+gzip", digest, size: 1000 };
const image = {
  version: 1,
  repository: "registry.example/a",
  manifestDigest: digest,
  configDigest: digest,
  platform: "linux/amd64",
  imageConfig: "{}",
  erofsSha256: hex,
  erofsSizeBytes: 4096,
  inodes: 2,
  layers: [
    {
      digest,
      mediaType: layer.mediaType,
      sizeBytes: 1,
      tarSizeBytes: 2,
      blobSizeBytes: 4096,
      entries: 3,
      spanSha256: hex,
      spanSizeBytes: 5,
    },
  ],
};
const manifest = {
  schemaVersion: 2,
  mediaType: mediaTypes.ociManifest,
  config: { ...layer, mediaType: "application/vnd.oci.image.config.v1+json" },
  layers: [layer, layer],
};
const list = {
  schemaVersion: 2,
  mediaType: mediaTypes.ociIndex,
  manifests: [
    {
      ...layer,
      mediaType: mediaTypes.ociManifest,
      platform: { os: "linux", architecture: "amd64", variant: "v8" },
    },
  ],
};
const config = {
  os: "linux",
  architecture: "amd64",
  config: { Env: ["A=b"], Cmd: ["sh"], Labels: { a: "b" } },
  rootfs: { type: "layers", diff_ids: [digest] },
};
const odd = [
  null,
  -1,
  0,
  1.5,
  1e308,
  2 ** 53,
  "",
  "\0",
  "../..",
  digest,
  `sha256:${"g".repeat(64)}`,
  [],
  {},
  [[]],
  true,
];

/** The document with values taken away, doubled, or put where others belong; or with changed bytes. */
function randomJson(random: SeededRandom, document: unknown): Buffer {
  const copy = structuredClone(document) as Record<string, unknown>;
  for (let left = random.next(4); left > 0; left -= 1) {
    let at: Record<string, unknown> = copy;
    for (;;) {
      const key = random.pick(Object.keys(at).length > 0 ? Object.keys(at) : ["new"]);
      const below = at[key];
      if (typeof below === "object" && below !== null && random.next(3) > 0) {
        at = below as Record<string, unknown>;
        continue;
      }
      if (random.next(4) === 0) delete at[key];
      else at[key] = structuredClone(random.pick(odd));
      break;
    }
  }
  const text = Buffer.from(JSON.stringify(copy));
  return random.next(3) === 0 ? mutate(text, random) : text;
}

/** An image's index: refused by name, or one that is written and named the same again. */
export const imageJsonTarget: Target = {
  name: "image-json",
  make: (random) => randomJson(random, image),
  async run(bytes) {
    const refusal = await refused(IndexError, () => {
      const index = decodeImageIndex(Buffer.from(bytes).toString("utf8"), "image.json");
      const again = decodeImageIndex(encodeImageIndex(index), "image.json");
      promise(
        imageIndexSha256(index) === imageIndexSha256(again),
        () => "it is named anew when written again",
      );
      const sizes = index.layers.flatMap((each) => [each.sizeBytes, each.blobSizeBytes, each.spanSizeBytes]);
      promise(
        sizes.every((size) => Number.isSafeInteger(size) && size >= 0),
        () => "a size is none",
      );
    });
    promise(refusal === undefined || refusal.code === "corrupt_index", () => `refused by ${refusal?.code}`);
  },
};

const trace = {
  version: 1,
  program: "python3",
  starts: 3,
  updatedAt: "2026-01-01T00:00:00.000Z",
  layers: [digest, `sha256:${"f".repeat(64)}`],
  ranges: [
    [0, 0, 1000, 500, 0],
    [1, 4096, 2_000_000, 900_000, 2],
  ],
};

/** What starts read, a hint in the store: thrown away, or within its limits and written the same again. */
export const traceTarget: Target = {
  name: "trace",
  make: (random) => randomJson(random, trace),
  run(bytes) {
    const read = decodeTrace(Buffer.from(bytes).toString("utf8"));
    if (read === undefined) return;
    promise(
      Bun.deepEquals(decodeTrace(encodeTrace(read)), read),
      () => "it is read differently when written again",
    );
    promise(read.ranges.length <= traceLimits.ranges, () => "it has more ranges than it may");
    const start = { ranges: read.ranges.slice(0, 1), seenLayers: [digest] };
    const next = mergeTrace(read, start, "a".repeat(200), new Date(0));
    promise(decodeTrace(encodeTrace(next)) !== undefined, () => "merged with a start it is none any more");
  },
};

const where = { registry: "registry.example", repository: "a" };
const field =
  'Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a:pull,push", Basic realm="x\\"y"';
const platforms = [
  "linux/amd64/v3",
  "linux/arm/v7",
  "linux/arm64/v8",
  "linux/amd64/v4000000000",
  "linux/arm/v99999999999",
];
const entries = ["linux/amd64", "linux/amd64/v2", "linux/arm/v6"].map((text) => ({
  descriptor: layer,
  platform: parsePlatform(text),
}));
const references = [
  ...platforms,
  "docker.io/library/alpine:3.20",
  `localhost:5000/a/b_c@${digest}`,
  "[::1]:5000/a",
  "a",
  "ghcr.io/o/r:t",
];

/** What a registry, or a user, says: answers, challenges, references. Refused by name, or whole. */
export const registryTarget: Target = {
  name: "registry",
  make(random) {
    const what = random.next(5);
    const body =
      what === 0
        ? mutate(Buffer.from(field), random)
        : what === 1
          ? mutate(Buffer.from(random.pick(references)), random)
          : randomJson(random, [manifest, list, config][what - 2]);
    return Buffer.concat([Buffer.from([what]), body]);
  },
  async run(input) {
    const body = Buffer.from(input.subarray(1));
    const text = body.toString("utf8");
    if (input[0] === 0) {
      for (const { scheme, parameters } of parseChallenges(text))
        promise(
          scheme !== "" && [...parameters.keys()].every((name) => name !== ""),
          () => "a nameless part",
        );
      parseRetryAfter(text, 0);
    } else if (input[0] === 1) {
      await refused(ImageReferenceError, () => {
        const shown = formatReference(parseReference(text));
        promise(formatReference(parseReference(shown)) === shown, () => `${shown} is not read back`);
      });
      await refused(ImageReferenceError, () => pickPlatform(entries, parsePlatform(text)));
    } else if (input[0] === 4) {
      imageConfigSchema.safeParse(parseOrEmpty(text));
    } else {
      await refused(RegistryError, () => {
        const parsed = parseManifest(
          body,
          input[0] === 2 ? mediaTypes.ociManifest : mediaTypes.ociIndex,
          "a:1",
          where,
        );
        const sizes = JSON.stringify(parsed).match(/"size":(-?[\d.e+]+)/g) ?? [];
        promise(
          sizes.every((size) => Number.isSafeInteger(Number(size.slice(7))) && Number(size.slice(7)) >= 0),
          () => "a size is none",
        );
      });
    }
  },
};

function parseOrEmpty(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}
