import { type ContainerSecrets, openContainerSecrets } from "../secret/container-secrets.ts";
import type { HoldDependencies, WorkerContainerRequest } from "./held-container.ts";

/**
 * Opens the secrets that a container is given, at once: what is sealed counts for minutes, and an image may take longer.
 * Where they cannot be opened nothing of it is mounted either.
 * @throws SecretError
 */
export async function givenSecrets(
  { bootKey, prepared }: Pick<HoldDependencies, "bootKey" | "prepared">,
  request: WorkerContainerRequest,
): Promise<ContainerSecrets> {
  const { sealedSecrets, sealContext, options } = request;
  try {
    return await openContainerSecrets(bootKey, sealedSecrets, sealContext, options.secrets);
  } catch (error) {
    prepared.drop(request);
    throw error;
  }
}
