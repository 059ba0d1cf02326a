import { CredentialError } from "./error.ts";
import { isGoogle } from "./family.ts";
import { googleIssuer, googleKeepRule } from "./google.ts";
import { impersonate, parseServiceAccountEmail } from "./google-impersonation.ts";
import { googleAccessScope } from "./google-key.ts";
import { identityOfAnother } from "./identity.ts";
import { IssuedAuthorizations } from "./issued.ts";
import type { Identity, IdentityDependencies } from "./issuer.ts";
import { askForJson, type IssuedToken, type IssuerCall, readToken } from "./issuer-answer.ts";

/** Settings of an operator's identity at Google. */
export interface GoogleIdentitySettings {
  /** The metadata server's default service account. */
  readonly source: "metadata";
  /** Goes on to this one. */
  readonly serviceAccount?: string | undefined;
}

const tokenUrl = "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token";
/** It answers from the machine itself, or is not there. */
const timeoutMs = 5_000;
/**
 * The metadata server keeps its tokens itself, until five minutes before their end (Google, "Access tokens on the
 * metadata server"): asked a little later than that, it has a new one.
 */
const metadataKeepRule = { lifeMs: 3600_000, marginMs: 4 * 60_000 };

/**
 * What the machine is at Google, as the operator's identity `name`.
 *
 * @throws CredentialError `bad_value` when the service account is none
 */
export function googleIdentity(
  name: string,
  settings: GoogleIdentitySettings,
  dependencies: IdentityDependencies,
): Identity {
  const { metadataFetch, ...others } = dependencies;
  const serviceAccount =
    settings.serviceAccount === undefined
      ? undefined
      : parseServiceAccountEmail(settings.serviceAccount, "service_account");
  const by = {
    principal: "the service account of this machine",
    role: "roles/iam.serviceAccountTokenCreator",
  } as const;
  const kept = new IssuedAuthorizations<IssuedToken>(dependencies.now);
  const keepRule = serviceAccount === undefined ? metadataKeepRule : googleKeepRule;
  const { fetch: send, now = Date.now } = dependencies;
  const token = async (): Promise<IssuedToken> => {
    const own = await metadataToken({ send: metadataFetch, now });
    return serviceAccount === undefined
      ? own
      : await impersonate(serviceAccount, own.value, by, { send, now });
  };
  return {
    name,
    googleToken: async (signal) => (await kept.get("token", keepRule, token, { signal })).value,
    provider(registry) {
      if (!isGoogle(registry)) throw identityOfAnother(name, "Google", registry);
      return googleIssuer({
        credential: { registry, type: "identity", credentials: {} },
        whose: name,
        make: async ({ now }) => ({ token: await metadataToken({ send: metadataFetch, now }), by }),
        serviceAccount,
        keepRule,
        dependencies: others,
      });
    },
  };
}

async function metadataToken(call: IssuerCall): Promise<IssuedToken> {
  const who = "Google's metadata server";
  const answer = await askForJson(call, {
    who,
    url: `${tokenUrl}?scopes=${encodeURIComponent(googleAccessScope)}`,
    headers: { "Metadata-Flavor": "Google" },
    timeoutMs,
  });
  // Without it somebody else answers, such as a proxy.
  if (answer.headers.get("metadata-flavor") !== "Google") {
    throw new CredentialError("provider_failed", `what answers as ${who} is something else`, {
      next: "Check that the node runs on a machine of Google's; elsewhere give a credential.",
    });
  }
  if (answer.status === 404) {
    throw new CredentialError("provider_failed", "this machine has no service account (404)", {
      next: "Attach one to the machine, or give a credential.",
    });
  }
  if (answer.status === 403) {
    throw new CredentialError("provider_failed", "the metadata server gives this machine no token (403)", {
      next: "Check the access scopes of the machine and that its service account is enabled.",
    });
  }
  return readToken(call, who, answer);
}
