/**
 * How the credential of a container's image reached its worker: there is none (a public image), a short-lived authorization
 * that the control plane got for it, or the credential itself, sealed.
 */
export type CredentialDelivery = "none" | "minted" | "sealed";

/** What is known of it; never a value. */
export interface ImageCredential {
  readonly delivery: CredentialDelivery;
  /** By the clock of the times below. */
  readonly givenAt: Date;
  /** The secret that it comes from, and which version of that it was. */
  readonly secretName?: string | undefined;
  readonly secretId?: string | undefined;
  readonly secretVersion?: number | undefined;
  /** The operator's identity that it comes from: the secret names it, or it stands in for a secret that is missing. */
  readonly identity?: string | undefined;
  /** Of the credential: `basic`, `aws`, … */
  readonly type?: string | undefined;
  /** What the worker can do with what it has, in words. */
  readonly scope?: string | undefined;
  /** The end of what was minted. */
  readonly validUntil?: Date | undefined;
  /** When the worker asks for the next. */
  readonly renewAt?: Date | undefined;
  /** Why nothing was minted, where it was to be. */
  readonly sealedReason?: string | undefined;
}

/** As a row holds it: times are RFC 3339. */
export type ImageCredentialJson = Readonly<
  Omit<ImageCredential, "givenAt" | "validUntil" | "renewAt"> & {
    givenAt: string;
    validUntil?: string | undefined;
    renewAt?: string | undefined;
  }
>;

export function imageCredentialToJson(credential: ImageCredential): ImageCredentialJson {
  const { givenAt, validUntil, renewAt, ...rest } = credential;
  return {
    ...rest,
    givenAt: givenAt.toISOString(),
    validUntil: validUntil?.toISOString(),
    renewAt: renewAt?.toISOString(),
  };
}

export function imageCredentialFromJson(json: ImageCredentialJson | null): ImageCredential | undefined {
  if (json === null) return undefined;
  const { givenAt, validUntil, renewAt, ...rest } = json;
  const date = (text: string | undefined) => (text === undefined ? undefined : new Date(text));
  return {
    ...rest,
    givenAt: new Date(givenAt),
    validUntil: date(validUntil),
    renewAt: date(renewAt),
  };
}

/** Where it comes from, for people: `version 2 of the secret ghcr`, `the identity prod`, or the latter in the former. */
export function originOf({ secretName, secretVersion, identity }: ImageCredential): string {
  const one = identity === undefined ? "" : `the identity ${identity}`;
  if (secretName === undefined && one !== "") return one;
  const secret = `version ${secretVersion ?? "?"} of the secret ${secretName ?? "?"}`;
  return one === "" ? secret : `${secret} (${one})`;
}

/** One sentence of what a worker has, for the container's events. */
export function describeImageCredential(credential: ImageCredential): string {
  const { delivery, scope, sealedReason, validUntil } = credential;
  if (delivery === "none") return "the image needs no credential";
  if (delivery === "minted" && validUntil === undefined)
    return `a short-lived authorization is made from ${originOf(credential)} when something of the image is missing`;
  const what =
    delivery === "minted" ? "a short-lived authorization was made from" : "the worker was given, sealed,";
  const why = sealedReason === undefined ? "" : `; ${sealedReason}`;
  return `${what} ${originOf(credential)}: ${scope ?? "its account's rights"}${why}`;
}
