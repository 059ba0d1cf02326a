import { z } from "zod";
import { normalizeRegistry } from "../reference/reference.ts";
import { CredentialError } from "./error.ts";
import type { CredentialMap } from "./provider.ts";
import { credentialMap } from "./value.ts";

const entrySchema = z.object({
  auth: z.string().optional(),
  username: z.string().optional(),
  password: z.string().optional(),
  identitytoken: z.string().optional(),
  registrytoken: z.string().optional(),
});
const configSchema = z.object({
  auths: z.record(z.string(), entrySchema).nullish(),
  credsStore: z.string().nullish(),
  credHelpers: z.record(z.string(), z.string()).nullish(),
});

type Entry = z.infer<typeof entrySchema>;

const configSizeMax = 1024 * 1024;

/**
 * A registry's credential from the text of Docker's `config.json` (`auths`: `auth`, `username` and `password`,
 * `identitytoken`, `registrytoken`). Credential helpers are programs of the caller's machine and are not run.
 *
 * @throws CredentialError `no_credentials` when there is none for the registry, or a helper keeps it; `bad_value`
 */
export function credentialsFromDockerConfig(registry: string, configJson: string): CredentialMap {
  const config = parseConfig(configJson);
  const helper = byRegistry(registry, config.credHelpers ?? {}) ?? config.credsStore ?? undefined;
  const entry = byRegistry(registry, config.auths ?? {});
  const values = entry === undefined ? undefined : valuesOf(registry, entry);
  if (values !== undefined) return credentialMap(values);
  if (helper) {
    throw new CredentialError(
      "no_credentials",
      `Docker keeps the credential for ${registry} in a credential helper (${helper})`,
      {
        next: `Run \`docker-credential-${helper} get\` yourself and pass USERNAME and PASSWORD with --creds.`,
      },
    );
  }
  throw new CredentialError("no_credentials", `Docker's config has no credential for ${registry}`, {
    next: `Run \`docker login ${registry}\`, or pass USERNAME and PASSWORD with --creds.`,
  });
}

function parseConfig(text: string): z.infer<typeof configSchema> {
  try {
    if (text.length <= configSizeMax) return configSchema.parse(JSON.parse(text));
  } catch {
    // The parser's message could quote a password.
  }
  throw new CredentialError("bad_value", "Docker's config is not the JSON that it should be", {
    next: "Check ~/.docker/config.json (or $DOCKER_CONFIG/config.json).",
  });
}

/** Keys are written as a host, as a URL, or (Docker Hub) as `https://index.docker.io/v1/`. */
function byRegistry<T>(registry: string, entries: Readonly<Record<string, T>>): T | undefined {
  for (const [key, value] of Object.entries(entries)) {
    const host = key.replace(/^https?:\/\//, "").replace(/\/(?:v[12]\/?)?$/, "");
    if (!host.includes("/") && canonical(host) === registry) return value;
  }
  return undefined;
}

function canonical(host: string): string | undefined {
  try {
    return normalizeRegistry(host);
  } catch {
    return undefined;
  }
}

/** `undefined` for the empty entry that Docker leaves behind when a helper keeps the credential. */
function valuesOf(registry: string, entry: Entry): Record<string, string> | undefined {
  if (entry.identitytoken) return { REGISTRY_IDENTITY_TOKEN: entry.identitytoken };
  if (entry.registrytoken) return { REGISTRY_TOKEN: entry.registrytoken };
  if (entry.username && entry.password) return { USERNAME: entry.username, PASSWORD: entry.password };
  if (!entry.auth) return undefined;
  const decoded = Buffer.from(entry.auth, "base64").toString("utf8").replace(/\0+$/, "");
  const colon = decoded.indexOf(":");
  if (colon <= 0 || colon === decoded.length - 1) {
    throw new CredentialError("bad_value", `Docker's config holds a malformed auth for ${registry}`, {
      next: `Run \`docker login ${registry}\` again.`,
    });
  }
  return { USERNAME: decoded.slice(0, colon), PASSWORD: decoded.slice(colon + 1) };
}
