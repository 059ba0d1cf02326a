import { createClient } from "@connectrpc/connect";
import { buildRouteMap } from "@stricli/core";
import { credentialsToWire } from "../credential/wire.ts";
import { type Image, ImageService } from "../gen/oci_node/v1/image_service_pb.ts";
import { parsePlatform } from "../reference/platform.ts";
import { formatReference, parseReference } from "../reference/reference.ts";
import { formatSize } from "../std/size.ts";
import { command, words } from "./action.ts";
import { CliError, connectTransport } from "./context.ts";
import { type CredentialFlags, credentialFlags, readCredentials } from "./credentials.ts";
import { ago, createProgress, printJson, printLine, printTable } from "./output.ts";
import { dateOf, imageShape } from "./shape.ts";

interface BuildFlags extends CredentialFlags {
  readonly json: boolean;
  readonly platform?: string;
  readonly secret?: string;
}

const build = command<BuildFlags, [string]>({
  brief: "Prove access to an image, keep its credentials as a secret, index its layers",
  fullDescription:
    "Prints the image id. Building again is cheap: what is indexed stays, an equal credential makes no new version.",
  flags: {
    ...credentialFlags,
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
  },
  positional: words({ placeholder: "REF", brief: "Image reference: ghcr.io/user/app:1.2" }),
  async run(flags, text) {
    const reference = parseReference(text);
    if (flags.platform !== undefined) parsePlatform(flags.platform);
    const credentials = await readCredentials(flags, reference.registry);
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
    if (flags.json) printJson(imageShape(built));
    else printLine(built.id);
    return 0;
  },
});

const list = command<{ json: boolean }>({
  brief: "List the workspace's images",
  async run(flags) {
    const { images } = await createClient(ImageService, connectTransport()).listImages({});
    if (flags.json) {
      printJson(images.map(imageShape));
      return 0;
    }
    printTable(
      ["ID", "REFERENCE", "PLATFORM", "LAYERS", "SIZE", "SECRET", "BUILT"],
      images.map((image) => [
        image.id,
        image.reference,
        image.platform,
        String(image.layers),
        formatSize(Number(image.sizeBytes)),
        image.credentialSecretName || "-",
        `${ago(dateOf(image.createdAt))} ago`,
      ]),
    );
    return 0;
  },
});

const inspect = command<{ json: boolean }, [string]>({
  brief: "Show one image",
  positional: words({ placeholder: "IMAGE", brief: "Image id or reference" }),
  async run(_, image) {
    const response = await createClient(ImageService, connectTransport()).getImage({ image });
    if (response.image !== undefined) printJson(imageShape(response.image));
    return 0;
  },
});

const remove = command<{ json: boolean }, [string]>({
  brief: "Remove an image; refused while a container uses it",
  positional: words({ placeholder: "IMAGE", brief: "Image id or reference" }),
  async run(flags, image) {
    await createClient(ImageService, connectTransport()).deleteImage({ image });
    if (flags.json) printJson({ removed: image });
    else printLine(image);
    return 0;
  },
});

export const imageRoutes = buildRouteMap({
  routes: { build, ls: list, inspect, rm: remove },
  docs: { brief: "Build and look after images" },
});
