import { Redacted } from "../std/redacted.ts";
import { SecretError } from "./error.ts";

/** The type of secrets that hold no credential of a registry, but a value for containers. */
export const opaqueType = "opaque";
const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
/** Bytes of one value. */
export const opaqueBytesMax = 64 * 1024;
/** Before the value in base64: what a vault keeps is text, and a credential is a JSON object. */
const prefix = "opaque v1 ";

/** Bytes as a vault keeps them. @throws SecretError `bad_value`, `too_large` */
export function opaqueValue(bytes: Uint8Array): Redacted<string> {
  if (bytes.length === 0)
    throw new SecretError("bad_value", "the value of the secret is empty", {
      next: "Give it by --from-file or on standard input: printf %s VALUE | oci-node secret create --opaque NAME",
    });
  if (bytes.length > opaqueBytesMax)
    throw new SecretError(
      "too_large",
      `the value of the secret has ${bytes.length} bytes; ${opaqueBytesMax} are allowed`,
      { next: "Put what is larger into a volume, or into the image if it is no secret." },
    );
  return new Redacted(`${prefix}${Buffer.from(bytes).toString("base64")}`);
}

/** As a variable may be called as well: people name such secrets by their variables. @throws SecretError `bad_name` */
export function assertOpaqueName(name: string): void {
  if (/^[A-Za-z0-9_][A-Za-z0-9._-]{0,254}$/.test(name) && !uuid.test(name)) return;
  throw new SecretError("bad_name", "the name of a secret is not one", {
    next: "Use up to 255 of letters, digits, `.`, `_` and `-`, beginning with none of `.` and `-`; a UUID is no name.",
  });
}

/** Whether a vault's text is such a value. */
export function isOpaqueText(text: string): boolean {
  return text.startsWith(prefix);
}

/** The bytes of such a text. @throws SecretError `bad_value` */
export function opaqueBytes(text: string): Buffer {
  if (!isOpaqueText(text)) throw new SecretError("bad_value", "the secret holds no value for containers");
  return Buffer.from(text.slice(prefix.length), "base64");
}

/** A value for containers where a credential is wanted, or the other way round. */
export function wrongKind(name: string, type: string, registry: string): SecretError {
  if (type === opaqueType)
    return new SecretError("bad_value", `the secret ${name} is a value for containers, and no credential`, {
      next: "See `oci-node secret ls` for those of registries.",
    });
  return new SecretError(
    "bad_value",
    `the secret ${name} is a credential of ${registry}, which no container is given`,
    { next: "Keep what the container needs as a secret of its own: oci-node secret create --opaque NAME." },
  );
}
