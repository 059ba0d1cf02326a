import { z } from "zod";
import {
  type CredentialTarget,
  type DockerConfig,
  dockerConfigOf,
  findInDockerConfig,
  parseDockerConfig,
} from "./docker-config.ts";
import { CredentialError } from "./error.ts";
import type { CredentialMap } from "./provider.ts";
import { parseYaml } from "./yaml.ts";

const values = z.record(z.string(), z.string()).nullish();
const secretSchema = z.object({
  kind: z.literal("Secret"),
  metadata: z.object({ name: z.string().nullish(), namespace: z.string().nullish() }).nullish(),
  data: values,
  stringData: values,
});
const listSchema = z.object({ kind: z.enum(["List", "SecretList"]), items: z.array(z.unknown()) });

/** Where Secrets of type `kubernetes.io/dockerconfigjson` and `kubernetes.io/dockercfg` have their content. */
const configKey = ".dockerconfigjson";
const legacyKey = ".dockercfg";

const textLengthMax = 4 * 1024 * 1024;
const decode = (base64: string): string => Buffer.from(base64, "base64").toString("utf8");

interface PullSecret {
  /** How an error calls it. */
  readonly name: string;
  readonly config: DockerConfig;
}

/**
 * A registry's credential from what `kubectl get secret … -o yaml` (or `json`) prints: a Secret of type
 * `kubernetes.io/dockerconfigjson` or `kubernetes.io/dockercfg`, a List of them, several documents, or a bare `config.json`,
 * encoded or not. Keys may name a part of a registry, as the kubelet has it; wildcards are not followed. Credential helpers
 * that a Secret names are programs of somebody else's choice and are never run.
 *
 * @throws CredentialError `bad_value`, `no_credentials`; Secrets are named, values never
 */
export async function credentialsFromKubernetes(
  target: CredentialTarget,
  text: string,
): Promise<CredentialMap> {
  const secrets = (await parseDocuments(text)).flatMap(pullSecretsOf);
  if (secrets.length === 0) {
    throw new CredentialError("no_credentials", "there is no image pull Secret in what was given", {
      next: `Give a Secret of type kubernetes.io/dockerconfigjson: kubectl get secret NAME -o yaml | oci-node … --creds-from kubernetes:-`,
    });
  }
  const found = await Promise.all(
    secrets.map(async ({ name, config }) => ({
      name,
      credentials: await findInDockerConfig(target, config, { owner: name, namespaces: true }),
    })),
  );
  const holding = found.filter(({ credentials }) => credentials !== undefined);
  const [first, other] = distinct(holding as readonly { name: string; credentials: CredentialMap }[]);
  if (first === undefined) throw nothingFor(target.registry, secrets);
  if (other === undefined) return first.credentials;
  throw new CredentialError(
    "bad_value",
    `${first.name} and ${other.name} hold different credentials for ${target.registry}`,
    { next: "Give one of them." },
  );
}

async function parseDocuments(text: string): Promise<readonly unknown[]> {
  if (text.length > textLengthMax) throw malformed();
  try {
    return [JSON.parse(text)];
  } catch {
    // kubectl prints YAML by default, of which JSON is a part.
  }
  return (await parseYaml(text)) ?? fail();
}

function fail(): never {
  throw malformed();
}

function malformed(): CredentialError {
  return new CredentialError(
    "bad_value",
    "what was given is no Kubernetes Secret, neither as YAML nor as JSON",
    {
      next: "Give what `kubectl get secret NAME -o yaml` prints.",
    },
  );
}

function pullSecretsOf(document: unknown): readonly PullSecret[] {
  const list = listSchema.safeParse(document);
  if (list.success)
    return list.data.items.flatMap((item) => (listSchema.safeParse(item).success ? [] : pullSecretsOf(item)));
  const secret = secretSchema.safeParse(document);
  if (secret.success) return pullSecretOf(secret.data);
  if (typeof document === "string") return pullSecretsOf(parseEncoded(document));
  const bare =
    typeof document === "object" && document !== null && "auths" in document && !("kind" in document);
  if (!bare) return [];
  return [{ name: "the config.json", config: dockerConfigOf(document, "the config.json") }];
}

/** The bare value, as `kubectl get secret … -o jsonpath={.data…}` prints it. */
function parseEncoded(base64: string): unknown {
  try {
    const parsed: unknown = JSON.parse(decode(base64));
    return typeof parsed === "object" ? parsed : undefined;
  } catch {
    return undefined;
  }
}

/** `stringData` is what the API server would write over `data`. */
function pullSecretOf({ metadata, data, stringData }: z.infer<typeof secretSchema>): readonly PullSecret[] {
  const given = [metadata?.namespace, metadata?.name].filter(Boolean).join("/");
  const name = /^[a-z0-9./-]{1,320}$/.test(given) ? `the Secret ${given}` : "the Secret";
  const textOf = (key: string): string | undefined => {
    const base64 = data?.[key];
    return stringData?.[key] ?? (base64 === undefined ? undefined : decode(base64));
  };
  const text = textOf(configKey);
  const legacy = textOf(legacyKey);
  if (text !== undefined) return [{ name, config: parseDockerConfig(text, name) }];
  return legacy === undefined ? [] : [{ name, config: parseDockerConfig(legacy, name, true) }];
}

/** Those that differ in what they hold, the first of equal ones. */
function distinct<T extends { readonly credentials: CredentialMap }>(holding: readonly T[]): readonly T[] {
  const seen = new Set<string>();
  return holding.filter(({ credentials }) => {
    const text = JSON.stringify(Object.entries(credentials).map(([key, value]) => [key, value.expose()]));
    const isNew = !seen.has(text);
    seen.add(text);
    return isNew;
  });
}

function nothingFor(registry: string, secrets: readonly PullSecret[]): CredentialError {
  const names = [...new Set(secrets.map(({ name }) => name))].slice(0, 5).join(", ");
  return new CredentialError("no_credentials", `${names}: no credential for ${registry}`, {
    next: `Give the Secret that has one, or make it: kubectl create secret docker-registry NAME --docker-server=${registry} …`,
  });
}
