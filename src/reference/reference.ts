import { isIPv6 } from "node:net";
import { isDigest } from "./digest.ts";
import { ImageReferenceError } from "./error.ts";

/**
 * An image in a registry. Parsed once, at the edge; everything inside works on this.
 *
 * Grammar: distribution/reference (`[domain/]path[:tag][@digest]`), with Docker's rule for what is a domain.
 */
export interface Reference {
  /** Lower-cased host, with its port when one was given: `docker.io`, `localhost:5000`, `[::1]:5000`. */
  readonly registry: string;
  readonly repository: string;
  readonly tag?: string;
  /** `sha256:…`; when a tag stands beside it, the digest decides. */
  readonly digest?: string;
}

/** Docker's own host names: one registry. */
const dockerHosts: ReadonlySet<string> = new Set(["docker.io", "index.docker.io", "registry-1.docker.io"]);
const componentPattern = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const tagPattern = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;
const hostLabelPattern = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
const repositoryLengthMax = 255;
const referenceLengthMax = 1024;

/**
 * Parses an image reference. `docker://` and `oci://` are accepted in front; without a tag and a digest the tag is
 * `latest`; a name without a registry is Docker Hub's.
 *
 * @throws ImageReferenceError `bad_reference`
 */
export function parseReference(text: string): Reference {
  const bare = stripTransport(text, text);
  const at = bare.indexOf("@");
  const digest = at < 0 ? undefined : bare.slice(at + 1);
  if (digest !== undefined && !isDigest(digest)) {
    refuse(
      text,
      "what follows @ is not a digest",
      "Write a digest as sha256: and 64 lower-case hexadecimal digits.",
    );
  }
  const named = at < 0 ? bare : bare.slice(0, at);
  const [domain, rest] = splitDomain(named);
  const colon = rest.indexOf(":");
  const tag = colon < 0 ? undefined : rest.slice(colon + 1);
  if (tag !== undefined && !tagPattern.test(tag)) {
    refuse(text, "the tag is not valid", "A tag has at most 128 letters, digits, '_', '.' and '-'.");
  }
  const path = colon < 0 ? rest : rest.slice(0, colon);
  checkRepository(text, path);
  const registry = domain === undefined ? "docker.io" : canonicalHost(text, domain);
  return {
    registry,
    repository: registry === "docker.io" && !path.includes("/") ? `library/${path}` : path,
    ...(tag === undefined ? {} : { tag }),
    ...(digest === undefined ? {} : { digest }),
    ...(tag === undefined && digest === undefined ? { tag: "latest" } : {}),
  };
}

/** The canonical text of a reference, with the registry always named: `docker.io/library/debian:12`. */
export function formatReference(reference: Reference): string {
  const tag = reference.tag === undefined ? "" : `:${reference.tag}`;
  const digest = reference.digest === undefined ? "" : `@${reference.digest}`;
  return `${reference.registry}/${reference.repository}${tag}${digest}`;
}

/** The registry of an image reference: `parseRegistry("ghcr.io/acme/app:1")` is `ghcr.io`. @throws ImageReferenceError */
export function parseRegistry(text: string): string {
  return parseReference(text).registry;
}

/**
 * The canonical form of a registry that is named by itself, without an image: `GHCR.io` is `ghcr.io`,
 * `index.docker.io` is `docker.io`. @throws ImageReferenceError `bad_reference`
 */
export function normalizeRegistry(text: string): string {
  return canonicalHost(text, stripTransport(text, text).replace(/\/$/, ""));
}

/** The host that serves a registry's API (only Docker Hub's differs from its name). */
export function registryApiHost(registry: string): string {
  return registry === "docker.io" ? "registry-1.docker.io" : registry;
}

function stripTransport(text: string, original: string): string {
  if (text.length === 0) refuse(original, "it is empty", "Name an image, such as ghcr.io/acme/app:1.2.");
  if (text.length > referenceLengthMax)
    refuse(original, "it is too long", "Name an image, such as ghcr.io/acme/app:1.2.");
  const bare = text.replace(/^(?:docker|oci):\/\//, "");
  if (bare.includes("://"))
    refuse(original, "it carries a scheme", "Leave https:// away: write HOST/REPOSITORY:TAG.");
  return bare;
}

/** Docker's rule: the first part is a host when it holds a dot or a colon, or is `localhost`, and a path follows. */
function splitDomain(named: string): readonly [domain: string | undefined, rest: string] {
  const slash = named.indexOf("/");
  if (slash < 0) return [undefined, named];
  const first = named.slice(0, slash);
  if (/[.:[]/.test(first) || first.toLowerCase() === "localhost") return [first, named.slice(slash + 1)];
  return [undefined, named];
}

function canonicalHost(text: string, domain: string): string {
  const match = /^(\[[0-9A-Fa-f:.]+\]|[^:[\]@/?#%\s\\]+)(?::(\d{1,5}))?$/.exec(domain);
  const name = match?.[1]?.toLowerCase();
  const port = match?.[2] === undefined ? undefined : Number(match[2]);
  const portValid = port === undefined || (port > 0 && port < 65536);
  if (name === undefined || !portValid) {
    refuse(
      text,
      "its registry is not a host name with an optional port",
      "Write HOST[:PORT]/REPOSITORY:TAG.",
    );
  }
  const host = name.startsWith("[") ? canonicalIpv6(text, name) : canonicalName(text, name);
  if (port === undefined) return dockerHosts.has(host) ? "docker.io" : host;
  return port === 443 && dockerHosts.has(host) ? "docker.io" : `${host}:${port}`;
}

function canonicalIpv6(text: string, bracketed: string): string {
  if (!isIPv6(bracketed.slice(1, -1)))
    refuse(text, "its registry is not an IPv6 address", "Write [ADDRESS]:PORT/REPOSITORY.");
  return new URL(`https://${bracketed}`).hostname;
}

/** WHATWG URL parsing turns `0x7f.1` into 127.0.0.1: a name that it rewrites is refused, so that it cannot hide one. */
function canonicalName(text: string, name: string): string {
  const valid = name.length <= 253 && name.split(".").every((label) => hostLabelPattern.test(label));
  if (!valid || !URL.canParse(`https://${name}`) || new URL(`https://${name}`).hostname !== name) {
    refuse(text, "its registry is not a valid host name", "Write HOST[:PORT]/REPOSITORY:TAG.");
  }
  return name;
}

function checkRepository(text: string, path: string): void {
  if (path.length > repositoryLengthMax)
    refuse(text, "its repository is longer than 255 characters", "Use a shorter name.");
  if (path.split("/").every((component) => componentPattern.test(component))) return;
  if (path !== path.toLowerCase())
    refuse(text, "its repository has upper-case letters", "Repositories are lower case.");
  refuse(text, "its repository is not a valid name", "Write [HOST[:PORT]/]REPOSITORY[:TAG][@DIGEST].");
}

function refuse(text: string, why: string, next: string): never {
  // Whoever pastes a URL with a password in it must not find it in a log.
  const shown = text.replace(/\/\/[^/]*@/, "//…@").slice(0, 200);
  throw new ImageReferenceError(
    "bad_reference",
    `${JSON.stringify(shown)} is not an image reference: ${why}`,
    {
      next,
    },
  );
}
