import { inspect } from "node:util";
import { printable } from "../std/printable.ts";
import { Redacted } from "../std/redacted.ts";
import { SecretError } from "./error.ts";
import { opaqueBytes, opaqueType, wrongKind } from "./opaque.ts";
import type { BootKey, SealContext } from "./seal.ts";
import type { SecretMetadata, Vault } from "./vault.ts";

/** Of all secrets of one container together. */
const totalBytesMax = 1024 * 1024;

/** How a container is given a secret. */
export interface GivenSecret {
  readonly secretName: string;
  readonly variable?: string | undefined;
  readonly path?: string | undefined;
}

/** What was read for a container: the values as one text, to be sealed, and what they are. */
export interface ReadSecrets {
  readonly values: Redacted<string>;
  readonly secrets: readonly SecretMetadata[];
}

/**
 * Reads the secrets that a container is given, this very moment. One that is missing is no empty value: the container is not
 * to run.
 * @throws SecretError `not_found`, `bad_value` (a registry's credential, or bytes that no variable can hold), `too_large`,
 *   `undecryptable`
 */
export async function readContainerSecrets(
  vault: Pick<Vault, "readNamed">,
  workspaceId: string,
  given: readonly GivenSecret[],
): Promise<ReadSecrets> {
  const names = [...new Set(given.map(({ secretName }) => secretName))];
  const inVariables = new Set(
    given.flatMap(({ secretName, variable }) => (variable === undefined ? [] : [secretName])),
  );
  const values: Record<string, string> = {};
  const secrets: SecretMetadata[] = [];
  let totalBytes = 0;
  for (const name of names) {
    const { secret, value } = await readOne(vault, workspaceId, name);
    if (secret.type !== opaqueType) throw wrongKind(name, secret.type, secret.registry);
    const bytes = opaqueBytes(value.expose());
    if (inVariables.has(name)) assertVariable(name, bytes);
    totalBytes += bytes.length;
    if (totalBytes > totalBytesMax)
      throw new SecretError("too_large", "the secrets of the container are larger than 1 MiB together", {
        next: "Give it fewer, or put what is large into a volume.",
      });
    values[name] = bytes.toString("base64");
    bytes.fill(0);
    secrets.push(secret);
  }
  return { values: new Redacted(JSON.stringify(values)), secrets };
}

/** What a container is given of secrets. It shows itself to nobody. */
export class ContainerSecrets {
  readonly #variables: Readonly<Record<string, string>>;
  readonly #files: ReadonlyMap<string, Uint8Array>;

  constructor(variables: Readonly<Record<string, string>>, files: ReadonlyMap<string, Uint8Array>) {
    this.#variables = variables;
    this.#files = files;
  }

  /** By the variable's name. For the container's own environment alone. */
  variables(): Readonly<Record<string, string>> {
    return this.#variables;
  }

  /** By the secret's name. */
  files(): ReadonlyMap<string, Uint8Array> {
    return this.#files;
  }

  toJSON(): string {
    return "[redacted]";
  }

  [inspect.custom](): string {
    return "[redacted]";
  }
}

/**
 * Opens what was sealed for a container.
 * @param sealed empty: it is given none
 * @throws SecretError as {@link BootKey.open}; `not_found` when a secret that it is given is not in there
 */
export async function openContainerSecrets(
  bootKey: BootKey,
  sealed: string,
  context: SealContext,
  given: readonly GivenSecret[],
): Promise<ContainerSecrets> {
  if (given.length === 0) return new ContainerSecrets({}, new Map());
  const values = sealed === "" ? {} : await open(bootKey, sealed, context);
  const variables: Record<string, string> = {};
  const files = new Map<string, Uint8Array>();
  for (const { secretName, variable, path } of given) {
    const text = Object.hasOwn(values, secretName) ? values[secretName] : undefined;
    if (text === undefined)
      throw new SecretError("not_found", `the secret ${secretName} was not given to this worker`, {
        next: "Upgrade the scheduler: one of an earlier version knows no secrets of containers.",
      });
    const bytes = Buffer.from(text, "base64");
    if (variable !== undefined) variables[variable] = bytes.toString("utf8");
    if (path !== undefined) files.set(secretName, bytes);
  }
  return new ContainerSecrets(variables, files);
}

async function open(bootKey: BootKey, sealed: string, context: SealContext): Promise<Record<string, string>> {
  const text = await bootKey.open(sealed, context, "container secrets");
  return JSON.parse(text.expose()) as Record<string, string>;
}

async function readOne(vault: Pick<Vault, "readNamed">, workspaceId: string, name: string) {
  const shown = printable(name);
  try {
    return await vault.readNamed(workspaceId, name);
  } catch (error) {
    if (!(error instanceof SecretError)) throw error;
    if (error.code === "not_found")
      throw new SecretError(
        "not_found",
        `the workspace has no secret ${shown}, which the container is to be given`,
        { next: `Make it: oci-node secret create --opaque ${shown}.` },
      );
    if (error.code === "undecryptable")
      throw new SecretError("undecryptable", `the container's secret ${shown} cannot be decrypted`, {
        next: `Give it its value again: oci-node secret update ${shown}.`,
      });
    throw error;
  }
}

/** @throws SecretError `bad_value` */
function assertVariable(name: string, bytes: Uint8Array): void {
  try {
    if (!new TextDecoder("utf-8", { fatal: true }).decode(bytes).includes("\0")) return;
  } catch {
    // Said below.
  }
  throw new SecretError("bad_value", `the secret ${name} holds bytes that no variable can hold`, {
    next: "Give it as a file.",
  });
}
