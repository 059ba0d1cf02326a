import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { run } from "../../src/std/spawn.ts";

const curve = ["-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

/** A certificate authority of a test, which signs what a test asks for. */
export class TestAuthority {
  /** Holds the authority's own certificate, for `ca_file`. */
  readonly certificateFile: string;
  readonly #dir: string;

  private constructor(dir: string) {
    this.#dir = dir;
    this.certificateFile = join(dir, "ca.pem");
  }

  static async make(): Promise<TestAuthority> {
    const authority = new TestAuthority(await mkdtemp(join(tmpdir(), "oci-node-ca-")));
    const files = ["-keyout", authority.#file("ca.key"), "-out", authority.certificateFile];
    await openssl(["req", "-x509", ...curve, "-subj", "/CN=oci-node test authority", "-days", "2", ...files]);
    return authority;
  }

  /** Key and certificate for a host's name; `days` below 0: its time is over. */
  async certificateFor(name: string, days = 2): Promise<{ readonly key: string; readonly cert: string }> {
    const [key, request, cert] = ["key", "csr", "pem"].map((end) => this.#file(`${name}.${end}`));
    if (key === undefined || request === undefined || cert === undefined) throw new Error("no names");
    const subject = ["-subj", `/CN=${name}`, "-addext", `subjectAltName=DNS:${name}`];
    await openssl(["req", "-new", ...curve, ...subject, "-keyout", key, "-out", request]);
    const signer = ["-CA", this.certificateFile, "-CAkey", this.#file("ca.key"), "-CAcreateserial"];
    const life = ["-days", String(days), "-copy_extensions", "copy"];
    await openssl(["x509", "-req", "-in", request, ...signer, ...life, "-out", cert]);
    return { key: await readFile(key, "utf8"), cert: await readFile(cert, "utf8") };
  }

  /** As {@link certificateFor}, by the files' paths. */
  async filesFor(name: string): Promise<{ readonly keyFile: string; readonly certFile: string }> {
    await this.certificateFor(name);
    return { keyFile: this.#file(`${name}.key`), certFile: this.#file(`${name}.pem`) };
  }

  async discard(): Promise<void> {
    await rm(this.#dir, { recursive: true, force: true });
  }

  #file(name: string): string {
    return join(this.#dir, name);
  }
}

async function openssl(args: readonly string[]): Promise<void> {
  await run(["openssl", ...args], { timeoutMs: 30_000 });
}

/** HTTPS on a free port of loopback under this certificate. */
export function serveTls(
  tls: { readonly key: string; readonly cert: string },
  fetch: (request: Request) => Response | Promise<Response>,
): Bun.Server<undefined> {
  return Bun.serve({ hostname: "127.0.0.1", port: 0, tls, fetch });
}
