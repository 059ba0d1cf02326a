import { createClient } from "@connectrpc/connect";
import { buildRouteMap } from "@stricli/core";
import { ImageService } from "../gen/oci_node/v1/image_service_pb.ts";
import { parseReference } from "../reference/reference.ts";
import { formatSize } from "../std/size.ts";
import { command, words } from "./action.ts";
import { type BuildFlags, buildFlags, buildImage } from "./build.ts";
import { connectTransport } from "./context.ts";
import { lazyStatusShape, printLazyStatus } from "./lazy-status.ts";
import { ago, printJson, printLine, printTable } from "./output.ts";
import { dateOf, imageShape } from "./shape.ts";

const build = command<BuildFlags, [string]>({
  brief: "Prove access to an image, keep its credentials as a secret, index its layers",
  fullDescription:
    "Prints the image id. Building again is cheap: what is indexed stays, an equal credential makes no new version.",
  flags: {
    ...buildFlags,
    indexOnly: {
      kind: "boolean",
      default: false,
      brief: "Keep nothing of the layers on the node: its containers fetch what they read",
    },
  },
  positional: words({ placeholder: "REF", brief: "Image reference: ghcr.io/user/app:1.2" }),
  async run(flags, text) {
    const built = await buildImage(parseReference(text), flags);
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

const inspect = command<{ json: boolean; lazy: boolean }, [string]>({
  brief: "Show one image",
  flags: {
    lazy: {
      kind: "boolean",
      default: false,
      brief: "What of it is cached and fetched, on which worker, and what its starts read",
    },
  },
  positional: words({ placeholder: "IMAGE", brief: "Image id or reference" }),
  async run(flags, image) {
    const client = createClient(ImageService, connectTransport());
    if (flags.lazy) {
      const status = await client.getLazyStatus({ image });
      if (flags.json) printJson(lazyStatusShape(status));
      else printLazyStatus(status);
      return 0;
    }
    const response = await client.getImage({ image });
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
