import { readFile, stat } from "node:fs/promises";
import { Redacted } from "../std/redacted.ts";
import { acrIssuer } from "./azure.ts";
import { acrResource, assertClientId, entraApp, entraToken } from "./azure-entra.ts";
import { CredentialError } from "./error.ts";
import { isAzure } from "./family.ts";
import { identityOfAnother } from "./identity.ts";
import type { Identity, IdentityDependencies } from "./issuer.ts";
import {
  askForJson,
  type IssuedToken,
  type IssuerCall,
  isToken,
  readToken,
  wordOf,
} from "./issuer-answer.ts";

/** Settings of an operator's identity at Azure. */
export interface AzureIdentitySettings {
  /** A managed identity of the machine (IMDS), or an application that a token in a file speaks for (workload identity). */
  readonly source: "managed" | "workload";
  /** `managed`: which, where the machine has several. `workload`: needed. */
  readonly clientId?: string | undefined;
  readonly tenantId?: string | undefined;
  /** Kubernetes writes it anew before it ends. */
  readonly tokenFile?: string | undefined;
}

const imdsUrl = "http://169.254.169.254/metadata/identity/oauth2/token";
const defaultTokenFile = "/var/run/secrets/azure/tokens/azure-identity-token";
const timeoutMs = 5_000;
const tokenFileSizeBytesMax = 64 * 1024;
/** The metadata service says so while it is being updated (Entra, "Managed identities", error handling). */
const beingUpdated = [404, 410];

/**
 * What the machine is at Azure, as the operator's identity `name`.
 *
 * @throws CredentialError `bad_value`, `missing_key`
 */
export function azureIdentity(
  name: string,
  settings: AzureIdentitySettings,
  dependencies: IdentityDependencies,
): Identity {
  const { metadataFetch, ...others } = dependencies;
  const makerOf = settings.source === "managed" ? managed(settings, metadataFetch) : workload(name, settings);
  return {
    name,
    provider(registry) {
      if (!isAzure(registry)) throw identityOfAnother(name, "Azure", registry);
      return acrIssuer({
        credential: { registry, type: "identity", credentials: {} },
        whose: name,
        visitor: { name: `the identity ${name}`, tenant: settings.tenantId },
        make: makerOf(registry),
        dependencies: others,
      });
    },
  };
}

type MakerOf = (registry: string) => (call: IssuerCall) => Promise<IssuedToken>;

function managed(
  settings: AzureIdentitySettings,
  metadataFetch: IdentityDependencies["metadataFetch"],
): MakerOf {
  const { clientId } = settings;
  if (clientId !== undefined) assertClientId(clientId, "client_id");
  return () => async (call) => managedToken({ send: metadataFetch, now: call.now }, clientId);
}

async function managedToken(call: IssuerCall, clientId: string | undefined): Promise<IssuedToken> {
  const query = new URLSearchParams({ "api-version": "2018-02-01", resource: acrResource });
  if (clientId !== undefined) query.set("client_id", clientId);
  const who = "Azure's metadata service";
  const answer = await askForJson(call, {
    who,
    url: `${imdsUrl}?${query}`,
    headers: { Metadata: "true" },
    busy: beingUpdated,
    timeoutMs,
  });
  if (answer.status === 200) return readToken(call, who, answer);
  const which =
    clientId === undefined ? "no managed identity, or several" : `no managed identity ${clientId}`;
  const said = wordOf(answer.json?.["error"]) ?? answer.status;
  throw new CredentialError("provider_failed", `this machine has ${which} (${said})`, {
    next: "Assign one to the machine; where it has several, set client_id in the node's configuration.",
  });
}

function workload(name: string, settings: AzureIdentitySettings): MakerOf {
  const { clientId, tenantId, tokenFile = defaultTokenFile } = settings;
  if (clientId === undefined || tenantId === undefined) {
    throw new CredentialError("missing_key", `identity ${name} lacks client_id or tenant_id`, {
      next: "Set both: those of the application that the token in the file speaks for.",
    });
  }
  entraApp("", clientId, tenantId);
  return (registry) => async (call) => {
    const assertion = await readTokenFile(tokenFile);
    return entraToken(entraApp(registry, clientId, tenantId), { kind: "assertion", assertion }, call);
  };
}

async function readTokenFile(path: string): Promise<Redacted<string>> {
  try {
    const { size } = await stat(path);
    const text = size <= tokenFileSizeBytesMax ? (await readFile(path, "utf8")).trim() : "";
    if (isToken(text)) return new Redacted(text);
  } catch (cause) {
    throw new CredentialError("provider_failed", `the token file ${path} cannot be read`, {
      cause,
      next: "Check token_file, and that the workload identity webhook put it there.",
    });
  }
  throw new CredentialError("provider_failed", `the file ${path} holds no token`, {
    next: "Check token_file, and that the workload identity webhook put it there.",
  });
}
