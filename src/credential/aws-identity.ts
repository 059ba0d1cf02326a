import { Redacted } from "../std/redacted.ts";
import { waitFor } from "../std/wait.ts";
import { keysOfIdentity } from "./aws-error.ts";
import { containerKeys, instanceKeys, parseContainerUrl, readTokenFile } from "./aws-metadata.ts";
import { ecrOf } from "./aws-provider.ts";
import { type AwsRole, checkPartition, parseRole, roleSessionName } from "./aws-role.ts";
import { assumeRole, assumeRoleWithWebIdentity } from "./aws-sts.ts";
import { ecrProvider } from "./ecr.ts";
import { homeSts, type StsPlace } from "./ecr-host.ts";
import { CredentialError } from "./error.ts";
import { fingerprintOf } from "./fingerprint.ts";
import { identityKey } from "./identity.ts";
import { IssuedAuthorizations } from "./issued.ts";
import type { AwsKeys, Identity, IdentityDependencies } from "./issuer.ts";

/** Settings of an operator's identity at AWS. */
export interface AwsIdentitySettings {
  /** The role of the EC2 instance, of the ECS task or EKS pod, or one that a token in a file speaks for (IRSA). */
  readonly source: "instance" | "container" | "web_identity";
  /** Of `web_identity`: that role; of the others: a role to go on to. */
  readonly roleArn?: string | undefined;
  /** Of `container`: where ECS or EKS serve its keys. */
  readonly containerCredentialsUri?: string | undefined;
  readonly containerTokenFile?: string | undefined;
  /** Kubernetes writes it anew before it ends. */
  readonly webIdentityTokenFile?: string | undefined;
}

/** AWS has the next keys five minutes before the end of the old ones. */
const keepRule = { lifeMs: 12 * 3600_000, marginMs: 5 * 60_000 };
/** What AWS allows where one role goes on to another. */
const sessionSeconds = 3600;
const defaultTokenFile = "/var/run/secrets/eks.amazonaws.com/serviceaccount/token";

/** Asks for keys; STS, where it is needed, near the place. */
type Ask = (place: StsPlace) => Promise<AwsKeys>;

/**
 * What the machine is at AWS, as the operator's identity `name`. Keys are kept until five minutes before their end, asked
 * for once however many wait, and the old ones serve until they truly end where there are no new ones.
 *
 * @throws CredentialError `bad_value`, `missing_key`
 */
export function awsIdentity(
  name: string,
  settings: AwsIdentitySettings,
  dependencies: IdentityDependencies,
): Identity {
  const role = settings.roleArn === undefined ? undefined : parseRole(settings.roleArn, "role_arn");
  const kept = new IssuedAuthorizations<AwsKeys>(dependencies.now);
  const ask = source(name, settings, role, kept, dependencies);
  // Keys of a role are good everywhere, but a region that does not answer must not hold up the others.
  const keys: Ask = role === undefined ? ask : (place) => kept.get(place.region, keepRule, () => ask(place));
  return {
    name,
    awsKeys: (signal, near) => waitFor(keys(near ?? homeSts[role?.partition ?? "aws"]), signal),
    provider(registry) {
      const ecr = ecrOf(registry);
      if (role !== undefined) checkPartition(role, registry, ecr);
      const credentials = { [identityKey]: new Redacted(name) };
      return ecrProvider(
        {
          registry,
          ecr,
          type: "identity",
          fingerprint: fingerprintOf({ registry, type: "identity", credentials }),
          source: { ...keysOfIdentity(name), ask: () => keys(ecr) },
        },
        dependencies,
      );
    },
  };
}

function source(
  name: string,
  settings: AwsIdentitySettings,
  role: AwsRole | undefined,
  kept: IssuedAuthorizations<AwsKeys>,
  dependencies: IdentityDependencies,
): Ask {
  const { now = Date.now } = dependencies;
  const call = { send: dependencies.metadataFetch, now };
  if (settings.source === "web_identity") return webIdentity(name, settings, role, dependencies);
  let machine: () => Promise<AwsKeys>;
  if (settings.source === "instance") {
    machine = () => kept.get("machine", keepRule, () => instanceKeys(call));
  } else {
    if (settings.containerCredentialsUri === undefined) throw lacks(name, "container_credentials_uri");
    const url = parseContainerUrl(settings.containerCredentialsUri);
    machine = () =>
      kept.get("machine", keepRule, () => containerKeys(call, url, settings.containerTokenFile));
  }
  if (role === undefined) return machine;
  return async (place) => {
    const stsCall = { ...stsOf(place, dependencies), keys: await machine() };
    return await assumeRole(sessionOf(name, role), stsCall, keysOfIdentity(name));
  };
}

function webIdentity(
  name: string,
  settings: AwsIdentitySettings,
  role: AwsRole | undefined,
  dependencies: IdentityDependencies,
): Ask {
  if (role === undefined) throw lacks(name, "role_arn");
  const path = settings.webIdentityTokenFile ?? defaultTokenFile;
  return async (place) => {
    const token = await readTokenFile(path, "web_identity_token_file");
    return await assumeRoleWithWebIdentity(sessionOf(name, role), token, stsOf(place, dependencies));
  };
}

function sessionOf(name: string, role: AwsRole) {
  return { role, name: roleSessionName(`identity-${name}`), durationSeconds: sessionSeconds };
}

function stsOf(place: StsPlace, { fetch }: IdentityDependencies) {
  return { region: place.region, endpoint: place.stsEndpoint, send: fetch };
}

function lacks(name: string, setting: string): CredentialError {
  return new CredentialError("missing_key", `identity ${name} lacks ${setting}`, {
    next: `Set ${setting} under [identities.${name}] in the node's configuration.`,
  });
}
