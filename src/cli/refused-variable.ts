/** What a shell profile sets where Bun is installed, and its package manager reads. */
const harmless: ReadonlySet<string> = new Set([
  "BUN_INSTALL",
  "BUN_INSTALL_BIN",
  "BUN_INSTALL_CACHE_DIR",
  "BUN_INSTALL_GLOBAL_DIR",
]);

/** Those that are not Bun's alone; why each must not be set. */
const others: Readonly<Record<string, string>> = {
  NODE_OPTIONS: "it could run other code inside of this program",
  NODE_TLS_REJECT_UNAUTHORIZED: "servers would not be asked for who they are",
  NODE_DEBUG: "it could make credentials visible",
  NODE_DEBUG_NATIVE: "it could make credentials visible",
  SSLKEYLOGFILE: "it could make credentials visible",
};

export interface RefusedVariable {
  readonly name: string;
  readonly why: string;
}

/**
 * The first variable that would change what this executable runs, or what it shows of what it sends. Of Bun's own all are, but
 * those that are known to do nothing here: it brings new ones with each version. Variables that name further authorities
 * (NODE_EXTRA_CA_CERTS, SSL_CERT_FILE) and proxies are the caller's to set.
 */
export function refusedVariable(
  env: Readonly<Record<string, string | undefined>>,
): RefusedVariable | undefined {
  for (const name of Object.keys(env)) {
    const why = others[name];
    if (why !== undefined) return { name, why };
    if (name.startsWith("BUN_") && !harmless.has(name))
      return { name, why: "it could make credentials visible" };
  }
  return undefined;
}
