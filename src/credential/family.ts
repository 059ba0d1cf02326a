import { parseEcrRegistry } from "./ecr-host.ts";
import { CredentialError } from "./error.ts";
import { type CredentialKey, googleKeyFileKey } from "./key.ts";
import type { CredentialMap, CredentialType } from "./provider.ts";

/** Keys that belong together, what they become, and the registries that they may be sent to. */
export interface CredentialFamily {
  readonly type: CredentialType;
  /** Each entry is needed; where it names several keys, one of them is enough. */
  readonly needs: readonly (readonly CredentialKey[])[];
  readonly may: readonly CredentialKey[];
  readonly fits: (registry: string) => boolean;
  /** What the family is for, in an error. */
  readonly purpose: string;
}

const anyRegistry = (): boolean => true;
const isHost =
  (...names: readonly string[]) =>
  (registry: string): boolean =>
    names.some((name) => registry === name || registry.endsWith(`.${name}`));

const isEcr = (registry: string): boolean => parseEcrRegistry(registry) !== undefined;
/** Google's registries: Artifact Registry and Container Registry. */
export const isGoogle = isHost("gcr.io", "pkg.dev");
/** Azure's registries, of all its clouds. */
export const isAzure = isHost("azurecr.io", "azurecr.cn", "azurecr.us");
const ecrPurpose = "Amazon ECR (ACCOUNT.dkr.ecr.REGION.amazonaws.com, public.ecr.aws)";
const googlePurpose = "Google Artifact Registry and Container Registry (pkg.dev, gcr.io)";
const azurePurpose = "Azure Container Registry (NAME.azurecr.io)";

/** Those bound to a registry come first, so that a file with keys for many registries gives each its own. */
export const families: readonly CredentialFamily[] = [
  {
    type: "aws",
    needs: [["AWS_ACCESS_KEY_ID"], ["AWS_SECRET_ACCESS_KEY"]],
    may: ["AWS_SESSION_TOKEN", "AWS_REGION", "AWS_ROLE_ARN"],
    fits: isEcr,
    purpose: ecrPurpose,
  },
  {
    type: "aws",
    needs: [["AWS_ROLE_ARN"]],
    may: ["AWS_REGION", "OCI_NODE_IDENTITY"],
    fits: isEcr,
    purpose: ecrPurpose,
  },
  {
    type: "gcp",
    needs: [[googleKeyFileKey]],
    may: ["GCP_PROJECT_ID", "GCP_SERVICE_ACCOUNT"],
    fits: isGoogle,
    purpose: googlePurpose,
  },
  {
    type: "gcp",
    needs: [["GCP_ACCESS_TOKEN"]],
    may: ["GCP_PROJECT_ID", "GCP_SERVICE_ACCOUNT"],
    fits: isGoogle,
    purpose: googlePurpose,
  },
  {
    type: "gcp",
    needs: [["GCP_WORKLOAD_IDENTITY_PROVIDER"]],
    may: ["GCP_PROJECT_ID", "GCP_SERVICE_ACCOUNT"],
    fits: isGoogle,
    purpose: googlePurpose,
  },
  {
    type: "azure",
    needs: [["AZURE_CLIENT_ID"], ["AZURE_CLIENT_SECRET"]],
    may: ["AZURE_TENANT_ID"],
    fits: isAzure,
    purpose: azurePurpose,
  },
  {
    type: "azure",
    needs: [["AZURE_CLIENT_ID"], ["AZURE_TENANT_ID"]],
    may: [],
    fits: isAzure,
    purpose: azurePurpose,
  },
  {
    type: "basic",
    needs: [["DOCKERHUB_USERNAME"], ["DOCKERHUB_PASSWORD", "DOCKERHUB_TOKEN"]],
    may: [],
    fits: isHost("docker.io"),
    purpose: "Docker Hub (docker.io)",
  },
  {
    type: "basic",
    needs: [["GITHUB_USERNAME"], ["GITHUB_TOKEN"]],
    may: [],
    fits: (registry) =>
      isHost("ghcr.io", "docker.pkg.github.com")(registry) ||
      /^containers\.[a-z0-9.-]+\.ghe\.com$/.test(registry),
    purpose: "the GitHub Container Registry (ghcr.io)",
  },
  {
    type: "basic",
    needs: [["NGC_API_KEY"]],
    may: [],
    fits: isHost("nvcr.io"),
    purpose: "NVIDIA NGC (nvcr.io)",
  },
  {
    type: "basic",
    needs: [["USERNAME"], ["PASSWORD"]],
    may: [],
    fits: anyRegistry,
    purpose: "any registry",
  },
  {
    type: "basic",
    needs: [["REGISTRY_USERNAME"], ["REGISTRY_PASSWORD"]],
    may: [],
    fits: anyRegistry,
    purpose: "any registry",
  },
  {
    type: "basic",
    needs: [["DOCKER_USERNAME"], ["DOCKER_PASSWORD"]],
    may: [],
    fits: anyRegistry,
    purpose: "any registry",
  },
  { type: "identity", needs: [["OCI_NODE_IDENTITY"]], may: [], fits: anyRegistry, purpose: "any registry" },
  { type: "token", needs: [["REGISTRY_TOKEN"]], may: [], fits: anyRegistry, purpose: "any registry" },
  {
    type: "token",
    needs: [["REGISTRY_IDENTITY_TOKEN"]],
    may: [],
    fits: anyRegistry,
    purpose: "any registry",
  },
];

/**
 * The family of keys that a registry gets from a map, or `undefined` for an empty map (a public image). Keys that
 * belong to other registries' families are passed over when one fits.
 *
 * @throws CredentialError `incomplete_pair` naming the missing key, `registry_mismatch`, `missing_key`
 */
export function chooseFamily(registry: string, credentials: CredentialMap): CredentialFamily | undefined {
  const keys = new Set(Object.keys(credentials));
  if (keys.size === 0) return undefined;
  const touched = families.filter((family) =>
    [...family.needs.flat(), ...family.may].some((key) => keys.has(key)),
  );
  const fitting = touched.filter((family) => family.fits(registry));
  const missingOf = (family: CredentialFamily) =>
    family.needs.filter((oneOf) => !oneOf.some((key) => keys.has(key)));
  for (const family of fitting) {
    const missing = missingOf(family);
    if (missing.length === 0) return family;
    // Azure's client id stands beside a secret or a tenant.
    const whole = fitting.find((other) => other.type === family.type && missingOf(other).length === 0);
    if (whole !== undefined) return whole;
    if (missing.length < family.needs.length) throw incomplete(family, missing, keys);
  }
  const other = fitting.length > 0 ? undefined : touched[0];
  if (other !== undefined) throw mismatch(registry, other, keys);
  const needed = fitting[0]?.needs.map((oneOf) => oneOf.join(" or ")).join(" and ");
  throw new CredentialError("missing_key", `${[...keys].join(", ")}: not a credential by itself`, {
    next: `Give ${needed ?? "USERNAME and PASSWORD"} as well.`,
  });
}

/** The keys of a family that a map holds, and no others: what is not needed is not kept. */
export function keysOf(family: CredentialFamily, credentials: CredentialMap): CredentialMap {
  const wanted: ReadonlySet<string> = new Set([...family.needs.flat(), ...family.may]);
  return Object.fromEntries(Object.entries(credentials).filter(([key]) => wanted.has(key)));
}

function incomplete(
  family: CredentialFamily,
  missing: readonly (readonly CredentialKey[])[],
  keys: ReadonlySet<string>,
): CredentialError {
  const given = [...family.needs.flat(), ...family.may].filter((key) => keys.has(key)).join(", ");
  const wanted = missing.map((oneOf) => oneOf.join(" or ")).join(" and ");
  return new CredentialError("incomplete_pair", `${wanted} is missing beside ${given}`, {
    next: `Give ${wanted} as well.`,
  });
}

function mismatch(registry: string, family: CredentialFamily, keys: ReadonlySet<string>): CredentialError {
  const given = [...family.needs.flat(), ...family.may].filter((key) => keys.has(key)).join(", ");
  const next =
    registry === "public.ecr.aws"
      ? "Images on public.ecr.aws need no credential: leave it out."
      : `Give the keys of ${registry} (USERNAME and PASSWORD work with any registry).`;
  return new CredentialError("registry_mismatch", `${given} is for ${family.purpose}, not for ${registry}`, {
    next,
  });
}
