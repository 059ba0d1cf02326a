/**
 * Builds a private image, runs a command in it and prints what it says; exits as it does.
 *
 *   export OCI_NODE_URL=… OCI_NODE_TOKEN=…      (or `oci-node dev` on this machine)
 *   bun src/sdk/typescript/example.ts ghcr.io/me/app:1 GITHUB_USERNAME,GITHUB_TOKEN echo hello
 */
import { ConnectError, connect, ErrorDetailSchema, LogStream } from "oci-node/client";

async function main([reference = "", keys = "", ...command]: readonly string[]): Promise<number> {
  const { images, containers } = connect();
  const names = keys.split(",").filter((name) => name !== "");
  const baseImageCreds = Object.fromEntries(names.map((name) => [name, process.env[name] ?? ""]));

  let imageId = "";
  for await (const { event } of images.buildImage({ reference, baseImageCreds })) {
    if (event.case === "progress" && event.value.layerDigest === "") console.error(event.value.message);
    if (event.case === "image") imageId = event.value.id;
  }

  const { container } = await containers.runContainer({ image: imageId, command: [...command] });
  const id = container?.id ?? "";
  for await (const { stream, data } of containers.streamLogs({ id, follow: true })) {
    (stream === LogStream.STDERR ? process.stderr : process.stdout).write(data);
  }
  let exitCode: number | undefined;
  for await (const { container } of containers.watchContainer({ id })) {
    exitCode = container?.exitCode;
    if (container?.reason) console.error(container.reason);
  }
  return exitCode ?? 1;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof ConnectError)) throw error;
  console.error(error.rawMessage);
  console.error(error.findDetails(ErrorDetailSchema)[0]?.next ?? "");
  process.exitCode = 1;
}
