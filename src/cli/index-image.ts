import { join, resolve } from "node:path";
import { formatReference, parseReference } from "../reference/reference.ts";
import { formatSize } from "../std/size.ts";
import { command, words } from "./action.ts";
import { type CredentialFlags, credentialFlags, readCredentials } from "./credentials.ts";
import { createProgress, printJson, printLine } from "./output.ts";
import {
  cacheHome,
  indexInto,
  limitsOf,
  openRepository,
  registryAccess,
  type StandaloneFlags,
  standaloneFlags,
} from "./standalone.ts";

interface IndexFlags extends CredentialFlags, StandaloneFlags {
  readonly json: boolean;
  readonly store?: string;
}

export const index = command<IndexFlags, [string]>({
  brief: "Index an image without any server, for `mount`",
  flags: {
    ...credentialFlags,
    ...standaloneFlags,
    store: {
      kind: "parsed",
      parse: String,
      optional: true,
      brief: "Folder of the index store (default ~/.cache/oci-node/index)",
      placeholder: "DIR",
    },
  },
  positional: words({ placeholder: "REF", brief: "Image reference" }),
  async run(flags, text) {
    const reference = parseReference(text);
    const repository = openRepository(
      reference,
      await readCredentials(flags, reference),
      registryAccess(flags),
    );
    const progress = createProgress(flags.json);
    const leaving = new AbortController();
    process.once("SIGINT", () => leaving.abort());
    const startedAt = performance.now();
    const built = await indexInto(resolve(flags.store ?? join(cacheHome(), "index")), repository, {
      platform: flags.platform,
      limits: limitsOf(flags),
      signal: leaving.signal,
      onProgress: ({ digest, bytesDone, bytesTotal }) =>
        progress.update({ label: digest.slice(0, 19), done: bytesDone, total: bytesTotal }),
    }).finally(() => progress.end());
    const { index: image, sha256 } = built;
    const layerBytes = image.layers.reduce((sum, layer) => sum + layer.sizeBytes, 0);
    const spanBytes = image.layers.reduce((sum, layer) => sum + layer.spanSizeBytes, 0);
    const ms = Math.round(performance.now() - startedAt);
    if (flags.json) {
      printJson({
        reference: formatReference(reference),
        manifestDigest: image.manifestDigest,
        indexSha256: sha256,
        layers: image.layers.length,
        inodes: image.inodes,
        compressedBytes: layerBytes,
        erofsBytes: image.erofsSizeBytes,
        accessPointBytes: spanBytes,
        ms,
      });
      return 0;
    }
    printLine(
      `${formatReference(reference)}: ${image.layers.length} layers of ${formatSize(layerBytes)}, ${image.inodes} inodes; ` +
        `tree ${formatSize(image.erofsSizeBytes)}, access points ${formatSize(spanBytes)}; ${ms} ms`,
    );
    printLine(sha256);
    return 0;
  },
});
