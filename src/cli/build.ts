import { createClient } from "@connectrpc/connect";
import { credentialsToWire } from "../credential/wire.ts";
import { type Image, ImageService } from "../gen/oci_node/v1/image_service_pb.ts";
import { parsePlatform } from "../reference/platform.ts";
import { formatReference, type Reference } from "../reference/reference.ts";
import { CliError, connectTransport } from "./context.ts";
import { type CredentialFlags, credentialFlags, identityFlag, readCredentials } from "./credentials.ts";
import { createProgress } from "./output.ts";

/** How the commands that may build an image say with which credentials, and for which platform. */
export interface BuildFlags extends CredentialFlags {
  readonly json: boolean;
  readonly platform?: string;
  readonly secret?: string;
  readonly indexOnly?: boolean;
}

export const buildFlags = {
  ...credentialFlags,
  ...identityFlag,
  secret: {
    kind: "parsed",
    parse: String,
    optional: true,
    brief: "Secret of the workspace to use in place of credentials",
    placeholder: "NAME",
  },
  platform: {
    kind: "parsed",
    parse: String,
    optional: true,
    brief: "Platform, such as linux/amd64; by default the node's",
    placeholder: "P",
  },
} as const;

/** Has the node build an image and shows how far it is, on standard error. Ctrl-C cancels the build. */
export async function buildImage(reference: Reference, flags: BuildFlags): Promise<Image> {
  if (flags.platform !== undefined) parsePlatform(flags.platform);
  const credentials = await readCredentials(flags, reference, { kept: true });
  if (credentials !== undefined && flags.secret !== undefined) {
    throw new CliError("usage", "--secret is given beside credentials", {
      next: "Give one of them: a secret has its credential already.",
    });
  }
  const client = createClient(ImageService, connectTransport());
  const progress = createProgress(flags.json);
  let built: Image | undefined;
  const interrupted = new AbortController();
  const interrupt = () => interrupted.abort();
  process.once("SIGINT", interrupt);
  try {
    for await (const { event } of client.buildImage(
      {
        reference: formatReference(reference),
        baseImageCreds: credentials === undefined ? {} : credentialsToWire(credentials),
        platform: flags.platform ?? "",
        secretName: flags.secret ?? "",
        indexOnly: flags.indexOnly ?? false,
      },
      { signal: interrupted.signal },
    )) {
      if (event.case === "image") built = event.value;
      if (event.case !== "progress") continue;
      const { layerDigest, message, bytesDone, bytesTotal } = event.value;
      if (layerDigest === "") progress.step(message);
      else
        progress.update({
          label: layerDigest.slice(0, 19),
          done: Number(bytesDone),
          total: Number(bytesTotal),
        });
    }
  } catch (thrown) {
    if (interrupted.signal.aborted)
      throw new CliError("failed", "the build was interrupted; nothing was kept of it");
    throw thrown;
  } finally {
    process.off("SIGINT", interrupt);
    progress.end();
  }
  if (built === undefined) throw new CliError("failed", "the node ended the build without an image");
  return built;
}
