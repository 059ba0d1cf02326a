import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { run } from "../std/spawn.ts";

/** A key and a certificate that signs itself: server and authority at once. */
export interface Certificate {
  readonly key: string;
  readonly certificate: string;
}

/** @param names host names, the first one is its common name too */
export async function makeCertificate(...names: readonly string[]): Promise<Certificate> {
  const directory = await mkdtemp(join(tmpdir(), "oci-node-tls-"));
  try {
    const [key, crt] = [join(directory, "key"), join(directory, "crt")];
    const subject = [
      "-subj",
      `/CN=${names[0]}`,
      "-addext",
      `subjectAltName=${names.map((name) => `DNS:${name}`)}`,
    ];
    const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    await run(["openssl", "req", "-x509", ...curve, ...subject, "-keyout", key, "-out", crt]);
    return { key: await readFile(key, "utf8"), certificate: await readFile(crt, "utf8") };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
