import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { isIP } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { run } from "../std/spawn.ts";

/** A key and a certificate that signs itself: server and authority at once. */
export interface Certificate {
  readonly key: string;
  readonly certificate: string;
}

/** @param names host names and addresses, the first one is its common name too */
export async function makeCertificate(...names: readonly string[]): Promise<Certificate> {
  const directory = await mkdtemp(join(tmpdir(), "oci-node-tls-"));
  try {
    const [key, crt] = [join(directory, "key"), join(directory, "crt")];
    const subject = [
      "-subj",
      `/CN=${names[0]}`,
      "-addext",
      `subjectAltName=${names.map((name) => `${isIP(name) === 0 ? "DNS" : "IP"}:${name}`)}`,
    ];
    const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    await run(["openssl", "req", "-x509", ...curve, ...subject, "-keyout", key, "-out", crt]);
    return { key: await readFile(key, "utf8"), certificate: await readFile(crt, "utf8") };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

const authorityOfOwn = `
[ca]
default_ca=own
[own]
database=index.txt
rand_serial=yes
new_certs_dir=.
default_md=sha256
policy=any
copy_extensions=copy
[any]
commonName=supplied
`;

/** One that ended years ago. */
export async function makeExpiredCertificate(name: string): Promise<Certificate> {
  const directory = await mkdtemp(join(tmpdir(), "oci-node-tls-"));
  try {
    await writeFile(join(directory, "index.txt"), "");
    await writeFile(join(directory, "ca.cnf"), authorityOfOwn);
    const openssl = (line: string) => run(["openssl", ...line.split(" ")], { cwd: directory });
    const curve = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    await openssl(
      `req -new ${curve} -subj /CN=${name} -addext subjectAltName=DNS:${name} -keyout key -out csr`,
    );
    const life = "-startdate 20200101000000Z -enddate 20200201000000Z";
    await openssl(`ca -batch -config ca.cnf -selfsign -keyfile key -in csr ${life} -out crt -notext`);
    const read = (file: string) => readFile(join(directory, file), "utf8");
    return { key: await read("key"), certificate: await read("crt") };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
