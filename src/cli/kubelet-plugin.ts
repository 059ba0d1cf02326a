import {
  type KubeletCredential,
  kubeletResponse,
  parseKubeletRequest,
} from "../credential/kubelet-response.ts";
import { formatReference, parseReference } from "../reference/reference.ts";
import { printJson } from "./output.ts";
import { getReleased, isNoCredential } from "./released.ts";
import { dateOf } from "./shape.ts";

/**
 * Answers the kubelet as its credential provider plugin: a CredentialProviderRequest on standard input, the response on
 * standard output. A registry that the workspace has nothing for is answered without a credential; what fails is told by
 * whoever catches it, on standard error, which the kubelet logs.
 */
export async function answerKubelet(secretName: string | undefined): Promise<void> {
  const request = parseKubeletRequest(await Bun.stdin.text());
  const { registry, repository } = parseReference(request.image);
  const credential = await credentialFor(formatReference({ registry, repository }), secretName);
  printJson(kubeletResponse(request, credential, Date.now()));
}

async function credentialFor(
  image: string,
  secretName: string | undefined,
): Promise<KubeletCredential | undefined> {
  try {
    const { registry, repository, username, secret, validUntil } = await getReleased(image, secretName);
    return { registry, repository, username, secret, validUntil: dateOf(validUntil) };
  } catch (thrown) {
    if (isNoCredential(thrown)) return undefined;
    throw thrown;
  }
}
