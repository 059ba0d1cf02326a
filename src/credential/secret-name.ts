const prefix = "oci-registry-";
const nameLengthMax = 255;

/**
 * The name of the workspace secret for a principal on a registry: `oci-registry-` and the host with `.`, `:` and `/`
 * as `-`. `a.b` and `a-b` then collide, and so do two accounts on one host: a name that is taken by another gets a
 * suffix made from host and principal, so the same credential always finds the same name.
 *
 * @param taken whether a name belongs to another registry or principal
 */
export function createSecretName(
  registry: string,
  principal = "default",
  taken: (name: string) => boolean = () => false,
): string {
  const candidates = secretNameCandidates(registry, principal);
  return candidates.find((name) => !taken(name)) ?? candidates[candidates.length - 1] ?? prefix;
}

/** The names to try, best first, for callers that look them up one by one. The last is as good as unique. */
export function secretNameCandidates(registry: string, principal = "default"): readonly string[] {
  const plain = `${prefix}${registry.toLowerCase().replace(/[^a-z0-9-]/g, "-")}`;
  const hash = new Bun.CryptoHasher("sha256")
    .update(`${registry.length}:${registry.toLowerCase()}${principal}`)
    .digest("hex");
  const suffixed = [8, 16, 64].map((length) => withSuffix(plain, hash.slice(0, length)));
  return plain.length <= nameLengthMax ? [plain, ...suffixed] : suffixed.slice(1);
}

function withSuffix(plain: string, suffix: string): string {
  return `${plain.slice(0, nameLengthMax - suffix.length - 1)}-${suffix}`;
}
