import { createClient } from "@connectrpc/connect";
import { placeOf } from "../credential/docker-config.ts";
import { notFoundMessage } from "../credential/docker-helper.ts";
import {
  CredentialService,
  type GetRegistryCredentialResponse,
} from "../gen/oci_node/v1/credential_service_pb.ts";
import { SecretService } from "../gen/oci_node/v1/secret_service_pb.ts";
import { CliError, connectTransport } from "./context.ts";
import { describeFailure } from "./failure.ts";

/** Docker waits for as long as we do, the kubelet for a minute. */
const answerTimeoutMs = 50_000;

/**
 * The workspace's credential for an image or a registry, as the node lets it out.
 *
 * @param image an image reference, or a registry's host
 * @param secretName undefined: the secret of OCI_NODE_SECRET if it is for this registry, else the only one that is
 */
export async function getReleased(
  image: string,
  secretName: string | undefined,
  env: Record<string, string | undefined> = process.env,
): Promise<GetRegistryCredentialResponse> {
  const transport = connectTransport();
  const preferred = secretName ?? (await preferredSecret(placeOf(image)?.registry, env["OCI_NODE_SECRET"]));
  return await createClient(CredentialService, transport).getRegistryCredential(
    { image, secretName: preferred ?? "" },
    { timeoutMs: answerTimeoutMs },
  );
}

/** Docker asks for every registry under one environment: a secret for another one is no mistake here. */
async function preferredSecret(registry: string | undefined, name: string | undefined) {
  if (!name) return undefined;
  const { secret } = await createClient(SecretService, connectTransport()).getSecret({ name });
  return secret?.registry === registry ? name : undefined;
}

/** Whether a failure says that the workspace has nothing for the registry, which is for other programs no failure. */
export function isNoCredential(thrown: unknown): boolean {
  return describeFailure(thrown).code === "no_credentials";
}

/** What is asked for, from an address as Docker writes it: `https://index.docker.io/v1/`, `ghcr.io`, `ghcr.io/acme/app`. */
export function imageOf(server: string): string {
  const place = placeOf(server);
  if (place === undefined) {
    throw new CliError("failed", "the address is none of a registry", {
      next: "Name a registry (ghcr.io, registry.example:5000) or an image.",
    });
  }
  return place.path === "" ? place.registry : `${place.registry}/${place.path}`;
}

/** A failure in one line, as a helper tells it to Docker; Docker shows it, and knows the one about nothing found. */
export function failureLine(thrown: unknown): string {
  if (isNoCredential(thrown)) return notFoundMessage;
  const { message, next } = describeFailure(thrown);
  return `oci-node: ${message}${next === undefined ? "" : `. ${next}`}`.replaceAll(/\s*\n\s*/g, " ");
}
